"""The model that a run starts from, and stage one: imitation of demonstrations."""

import time
from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainerCallback
from trl import SFTConfig

from rltoolkit.data.demonstrations import build_demonstrations
from rltoolkit.data.load import load_rows
from rltoolkit.phases.evaluation import GREEDY, evaluate_task, evaluation_phase
from rltoolkit.phases.report import already_finished, report
from rltoolkit.phases.setting import (
    Run,
    begin_run,
    free_memory,
    lora_config,
    model_options,
    prepare_run,
    start_name,
    trainer_options,
)
from rltoolkit.recipe import LoadedRecipe, RecipeError
from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.paths import is_embedded
from rltoolkit.recipe.train_section import build_config
from rltoolkit.rollout.ranks import on_main_process
from rltoolkit.run.callback import MetricsCallback
from rltoolkit.sft.stage import run_sft
from rltoolkit.sft.stop import StopAtAccuracy

__all__ = ["run_sft_recipe", "sft_phase", "start_model"]

MEASURE_EVERY = 100  # steps between two measurements for sft.until_accuracy, where eval.every_steps says nothing


def start_model(run: Run) -> str:
    """The model that the run starts from; an embedded one is made into the run folder first."""
    name = start_name(run.model_name, run.folder)
    if not is_embedded(run.model_name):
        return name
    folder = Path(name)

    def work() -> None:
        from rltoolkit.embedded.models import save_countdown_model

        if not run.folder.is_done("start"):
            save_countdown_model(folder, run.recipe.seed)
            run.folder.finish("start", {"model": str(folder.relative_to(run.folder.path))})

    on_main_process("make the start model", work)
    return name


def sft_phase(run: Run, model: str, folder: Path) -> str:
    """Stage one, where the recipe has one: imitation of demonstrations. Returns the model to go on with.

    The trained model is saved to `folder`.
    """
    section = run.recipe.sft
    if section is None:
        return model
    if run.is_done("sft"):
        run.say(f"sft: done before, {folder}")
        return str(folder)
    fixed = trainer_options(run, "sft")
    config: SFTConfig = build_config(run.loaded, SFTConfig, section="sft.train", fixed=fixed)
    rows = load_rows(section.data, run.loaded.path, seed=run.recipe.seed)
    demonstrations = build_demonstrations(rows, section.data, run.tokenizer, config.max_length)
    run.say(f"sft: {len(demonstrations)} demonstrations")
    trained = run_sft(
        AutoModelForCausalLM.from_pretrained(model, **model_options(run.recipe)),
        run.tokenizer,
        demonstrations,
        config,
        model_dir=folder,
        callbacks=[MetricsCallback(run.metrics, "sft"), *_stop_at_accuracy(run)],
        peft_config=lora_config(run.recipe),
    )
    result = {"model": str(folder.relative_to(run.folder.path)), "steps": trained.steps, "seconds": trained.seconds}
    run.folder.finish("sft", result)
    run.state.wait_for_everyone()
    del trained
    free_memory()
    return str(folder)


def _stop_at_accuracy(run: Run) -> list[TrainerCallback]:
    """For `sft.until_accuracy`: greedy accuracy on the first task, measured every `eval.every_steps` steps."""
    section = run.recipe.sft
    if section is None or section.until_accuracy is None:
        return []
    if not run.tasks:
        finding = Finding("sft.until_accuracy", "nothing is measured", remedy="name a task in eval.tasks")
        raise RecipeError([run.loaded.problem(finding)])

    def accuracy_of(policy: PreTrainedModel) -> float:
        with run.rollouts.sampler(policy, 0) as backend:
            return evaluate_task(run, backend, run.tasks[0], GREEDY, None).estimate.mean

    def measure(policy: PreTrainedModel) -> float:
        # one process decides for all: where one stops and another goes on, both wait for ever
        if run.rollouts.samples_here:  # a sharded module samples only on all processes
            return float(broadcast_object_list([accuracy_of(policy)])[0])
        return on_main_process("measure its accuracy", lambda: accuracy_of(policy))

    return [StopAtAccuracy(measure, section.until_accuracy, run.recipe.eval.every_steps or MEASURE_EVERY)]


def run_sft_recipe(loaded: LoadedRecipe) -> Path:
    """Method `sft`: stage one alone, evaluated before and after. Returns the run folder."""
    run = begin_run(prepare_run(loaded))
    if already_finished(run):
        return run.folder.path
    started = time.monotonic()
    start = start_model(run)
    with run.rollouts as rollouts:
        rollouts.open()
        evaluation_phase(run, "evaluate_before", start, step=0)
        trained = sft_phase(run, start, run.folder.model_dir)
        evaluation_phase(run, "evaluate_after", trained, step=run.folder.result("sft")["steps"])
    report(run, time.monotonic() - started)
    return run.folder.path
