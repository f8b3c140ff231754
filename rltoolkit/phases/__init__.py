"""The phases that methods share: the start model, stage one, evaluations and the report at the end.

A phase that is done is skipped when the same recipe is started again, so a run that died goes on where it stopped.
"""

from rltoolkit.phases.evaluation import EvaluationCallback, evaluation_phase
from rltoolkit.phases.report import already_finished, report
from rltoolkit.phases.setting import (
    Run,
    begin_run,
    free_memory,
    lora_config,
    model_options,
    prepare_run,
    resolved_model,
    trainer_options,
)
from rltoolkit.phases.stage_one import run_sft_recipe, sft_phase, start_model

__all__ = [
    "EvaluationCallback",
    "Run",
    "already_finished",
    "begin_run",
    "evaluation_phase",
    "free_memory",
    "lora_config",
    "model_options",
    "prepare_run",
    "report",
    "resolved_model",
    "run_sft_recipe",
    "sft_phase",
    "start_model",
    "trainer_options",
]
