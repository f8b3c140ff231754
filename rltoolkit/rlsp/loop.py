"""A whole run of RLSP from a recipe: stage one, evaluation, PPO, evaluation, report."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.markup import escape
from transformers import AutoModelForCausalLM

from reward_models.pool import VerifierPool
from reward_models.reward_func import as_reward_func
from reward_models.verdict import Outcome, Verifier
from rltoolkit.data.load import load_rows
from rltoolkit.data.prompts import build_prompts
from rltoolkit.data.unreadable import unreadable_references
from rltoolkit.errors import DataError
from rltoolkit.phases import (
    EvaluationCallback,
    Run,
    already_finished,
    begin_run,
    evaluation_phase,
    free_memory,
    lora_config,
    model_options,
    prepare_run,
    report,
    resolved_model,
    sft_phase,
    start_model,
    trainer_options,
)
from rltoolkit.recipe import LoadedRecipe, RecipeError
from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.plugins import make_exploration, make_verifier
from rltoolkit.recipe.train_section import build_config
from rltoolkit.rlsp.config import RLSPConfig, sampling_options
from rltoolkit.rlsp.critics.files import fitting_form
from rltoolkit.rlsp.critics.start import wanted_form
from rltoolkit.rlsp.trainer import RLSPTrainer
from rltoolkit.rlsp.watch.held_out import ALARM_PHASE, RunAlarm
from rltoolkit.run.atomic import replacing_folder
from rltoolkit.run.callback import MetricsCallback, show_progress
from rltoolkit.run.card import ALARM
from rltoolkit.run.resume import train_or_resume
from rltoolkit.run.samples import SampleRow, write_samples
from rltoolkit.sft.stage import FILES_OF_THE_TRAINER

__all__ = ["run_rlsp_recipe"]

TRAIN_PHASE = "train"
SHOWN = (
    "reward/outcome",
    "reward/exploration",
    "completions/mean_length",
    "value/explained_variance",
    "entropy",
    "sampling/logp_difference_mean",  # there where another program than the trainer samples
)
GOLD_ROWS = 100  # a verifier that does not fit the data shows at once; `rltoolkit check` looks at more


def run_rlsp_recipe(loaded: LoadedRecipe) -> Path:
    """Run or continue a recipe with `method: rlsp`; returns the run folder.

    What can be known without weights is checked first: recipe, options, the form of a saved critic, data, references.
    Raises RecipeError, DataError, ModelError or RunFolderError, and overwrites nothing.
    """
    verifier = make_verifier(loaded)
    make_exploration(loaded)
    run = prepare_run(loaded)
    config = _config(run)
    prompts = _prompts(run)
    config.require_prompts(len(prompts))
    with _pool(loaded, verifier) as pool:
        _check_references(run, pool, list(prompts["answer"]))
        _check_gold(run, pool, list(prompts["answer"]))
        run = begin_run(run)
        if already_finished(run):
            return run.folder.path
        started = time.monotonic()
        start = start_model(run)
        with run.rollouts as rollouts:
            rollouts.open()
            model = sft_phase(run, start, run.folder.path / "checkpoints" / "sft" / "model")
            evaluation_phase(run, "evaluate_before", model, step=0)
            _train_phase(run, config, prompts, model, verifier, pool)
            steps = run.folder.result(TRAIN_PHASE)["steps"]
            evaluation_phase(run, "evaluate_after", str(run.folder.model_dir), step=steps)
    report(run, time.monotonic() - started, {ALARM: _final_alarm(run)})
    return run.folder.path


def _config(run: Run) -> RLSPConfig:
    rollout = run.recipe.rollout
    fixed = {
        **trainer_options(run, TRAIN_PHASE),
        **sampling_options(rollout),
        "use_vllm": rollout.backend == "trl-vllm",
    }
    config: RLSPConfig = build_config(run.loaded, RLSPConfig, fixed=fixed)
    critic = config.critic_model_name_or_path
    if critic is not None:
        config.critic_model_name_or_path = resolved_model(run.loaded, "train.critic_model_name_or_path", critic)
        fitting_form(config.critic_model_name_or_path, wanted_form(config))
    return config


def _prompts(run: Run) -> Dataset:
    data = run.recipe.data
    if data is None:
        raise RecipeError([run.loaded.problem(Finding("data.train", "missing", remedy="name the prompts"))])
    rows = load_rows(data.train, run.loaded.path, seed=run.recipe.seed)
    return build_prompts(rows, data.train, run.tokenizer, run.recipe.rollout.max_prompt_tokens)


def _pool(loaded: LoadedRecipe, verifier: Verifier) -> VerifierPool:
    rewards = loaded.recipe.rewards
    if rewards is None:
        return VerifierPool(verifier)
    return VerifierPool(verifier, **rewards.pool.model_dump())


def _check_references(run: Run, pool: VerifierPool, references: list[str]) -> None:
    """Ask the verifier whether it can read the references, before any weight is loaded."""
    count, what = unreadable_references(pool, references)
    if not count:
        return
    if count == len(references):
        raise DataError(f"{what}; check data.train.reference and rewards.outcome.verifier")
    left_out = "these rows are left out of the loss and counted as verdict/bad_reference"
    run.say(f"[yellow]note[/yellow] {escape(what)}; {left_out}")


def _check_gold(run: Run, pool: VerifierPool, references: list[str]) -> None:
    """Say before training that the verifier calls right answers wrong; the first rows show it."""
    gold = pool.check_gold(references[:GOLD_ROWS])
    refused = [failure for failure in gold.certain_failures if failure[2].outcome is not Outcome.BAD_REFERENCE]
    if not refused:
        return
    row, reference, verdict = refused[0]
    tried = gold.outcomes.total()
    what = (
        f"the verifier does not accept {len(refused)} of {tried} gold answers, first in row {row}: "
        f"{reference!r} is judged {verdict.outcome} ({verdict.detail})"
    )
    if len(refused) == tried:
        raise DataError(f"{what}; check data.train.reference and rewards.outcome")
    run.say(f"[yellow]note[/yellow] {escape(what)}; `rltoolkit check` lists the first of them")


def _train_phase(
    run: Run, config: RLSPConfig, prompts: Dataset, model: str, verifier: Verifier, pool: VerifierPool
) -> None:
    if run.is_done(TRAIN_PHASE):
        run.say(f"train: done before, {run.folder.model_dir}")
        return
    alarm = RunAlarm(run)
    alarm.hear_phase("evaluate_before", 0)
    policy = AutoModelForCausalLM.from_pretrained(model, **model_options(run.recipe))
    trainer = RLSPTrainer(
        policy,
        as_reward_func(verifier, pool=pool),
        make_exploration(run.loaded),
        config,
        prompts,
        processing_class=run.tokenizer,
        peft_config=lora_config(run.recipe),
        callbacks=_callbacks(run, alarm),
        sample_sink=lambda step, rank, rows: _keep_samples(run, step, rank, rows),
        alarm=alarm.alarm,
    )
    if not config.use_vllm:
        trainer.rollout_backend = run.rollouts.backend_for(trainer.model)  # with the adapters that it may have now
    show_progress(trainer, TRAIN_PHASE, SHOWN)
    checkpoint = run.folder.last_checkpoint(TRAIN_PHASE)
    run.say(f"train: {len(prompts)} prompts, {config.generation_batch_size} responses per rollout")
    started = time.monotonic()
    train_or_resume(trainer, checkpoint)
    _save_model(trainer, run)
    result = {"steps": trainer.state.global_step, "seconds": time.monotonic() - started}
    result[ALARM] = alarm.alarm.state_dict()
    run.folder.finish(TRAIN_PHASE, result)
    run.state.wait_for_everyone()
    del trainer, policy
    free_memory()


def _save_model(trainer: RLSPTrainer, run: Run) -> None:
    """Policy, tokenizer and critic in one step, without the Trainer's own files."""
    is_main = trainer.is_world_process_zero()
    with replacing_folder(run.folder.model_dir, is_main=is_main) as folder:
        trainer.save_model(str(folder))
        if is_main:
            for name in FILES_OF_THE_TRAINER:
                (folder / name).unlink(missing_ok=True)
    trainer.accelerator.wait_for_everyone()


def _final_alarm(run: Run) -> dict[str, Any]:
    """What the alarm has to say when the trained model has been evaluated, too."""
    result = run.folder.result(TRAIN_PHASE)
    alarm = RunAlarm(run)
    if ALARM in result:  # not where an older version has trained
        alarm.alarm.load_state_dict(result[ALARM])
    alarm.hear_phase("evaluate_after", result["steps"])
    return alarm.summary()


def _callbacks(run: Run, alarm: RunAlarm) -> list[Any]:
    callbacks: list[Any] = [MetricsCallback(run.metrics, TRAIN_PHASE, also_rewind=("evaluate", ALARM_PHASE))]
    if run.recipe.eval.every_steps is not None and run.tasks:
        callbacks.append(EvaluationCallback(run, run.recipe.eval.every_steps, alarm.hear))
    return callbacks


def _keep_samples(run: Run, step: int, rank: int, rows: Sequence[SampleRow]) -> None:
    write_samples(run.folder.samples_dir, step, rank, rows)
