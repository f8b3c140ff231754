"""The phases that methods share: the start model, stage one, evaluations and the report at the end.

A phase that is done is skipped when the same recipe is started again, so a run that died goes on where it stopped.
"""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from peft import LoraConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from trl import SFTConfig

from eval.runner import TaskResult, evaluate
from eval.tasks import Task, load_task
from reward_models.pool import VerifierPool
from rltoolkit.data.demonstrations import build_demonstrations
from rltoolkit.data.load import load_rows
from rltoolkit.data.tokenizer import load_tokenizer
from rltoolkit.recipe import LoadedRecipe, Recipe, RecipeError, output_dir_of, recipe_hash, resolved_dict
from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.paths import is_embedded, resolve_data_path
from rltoolkit.recipe.problems import RefusedError
from rltoolkit.recipe.schema import PoolSection
from rltoolkit.recipe.train_section import build_config
from rltoolkit.rollout.transformers_backend import TransformersBackend, end_token_ids
from rltoolkit.run.callback import MetricsCallback
from rltoolkit.run.card import write_card
from rltoolkit.run.folder import RunFolder
from rltoolkit.run.metrics import MetricsWriter, read_metrics
from rltoolkit.run.plots import write_plots
from rltoolkit.sft.stage import run_sft
from rltoolkit.sft.stop import StopAtAccuracy
from rltoolkit.types import SamplingParams

__all__ = [
    "EvaluationCallback",
    "Run",
    "already_finished",
    "begin_run",
    "evaluation_phase",
    "lora_config",
    "prepare_run",
    "report",
    "resolved_model",
    "run_sft_recipe",
    "sft_phase",
    "trainer_options",
    "transformers_backend",
]


GREEDY, SAMPLED = "accuracy", "sampled"  # as the metrics and summary.json call them
MEASURE_EVERY = 100  # steps between two measurements for sft.until_accuracy, where eval.every_steps says nothing


@dataclass(frozen=True)
class Run:
    """What every phase needs."""

    loaded: LoadedRecipe
    folder: RunFolder
    metrics: MetricsWriter
    model_name: str
    """Folder, hub name or embedded world, with variables expanded and relative folders found."""
    tokenizer: PreTrainedTokenizerBase
    tasks: tuple[Task, ...]
    console: Console

    @property
    def recipe(self) -> Recipe:
        """The checked recipe."""
        return self.loaded.recipe

    @property
    def state(self) -> PartialState:
        """The processes of this run."""
        return PartialState()

    def is_done(self, phase: str) -> bool:
        """Whether an earlier start finished the phase; all processes look before any goes on."""
        done = self.folder.is_done(phase)
        self.state.wait_for_everyone()
        return done

    def say(self, text: str) -> None:
        """Tell the user, once."""
        if self.state.is_main_process:
            self.console.print(text, highlight=False, soft_wrap=True)


def prepare_run(loaded: LoadedRecipe) -> Run:
    """Check model name, tokenizer and tasks; loads no weights and writes nothing, `begin_run` does that."""
    recipe = loaded.recipe
    state = PartialState(cpu=bool(recipe.train.get("use_cpu", False)))
    model_name = resolved_model(loaded, "model.name_or_path", recipe.model.name_or_path)
    folder = RunFolder(output_dir_of(loaded), is_main=state.is_main_process)
    metrics = MetricsWriter(folder.metrics_path, is_main=state.is_main_process)
    tasks = tuple(_task(name, recipe) for name in recipe.eval.tasks)
    return Run(loaded, folder, metrics, model_name, load_tokenizer(model_name), tasks, Console())


def begin_run(run: Run) -> Run:
    """Create the run folder or continue in it; called once everything is checked that needs no weights."""
    recipe = run.recipe
    with run.state.main_process_first():
        folder = RunFolder.open(run.folder.path, resolved_dict(recipe), recipe_hash(recipe), is_main=run.folder.is_main)
    run.say(f"[bold]{recipe.method}[/bold]  {run.loaded.path} -> {folder.path}")
    return replace(run, folder=folder, metrics=MetricsWriter(folder.metrics_path, is_main=folder.is_main))


def resolved_model(loaded: LoadedRecipe, key: str, name: str) -> str:
    """A model's folder or hub name as `from_pretrained` takes it; RecipeError for a folder that is not there."""
    try:
        return str(resolve_data_path(name, loaded.path))
    except RefusedError as refusal:
        raise RecipeError([loaded.problem(Finding(key, refusal.found, remedy=refusal.remedy))]) from refusal


def _task(name: str, recipe: Recipe) -> Task:
    """A task, asked in the format that the policy is trained on."""
    task = load_task(name, limit=recipe.eval.questions, seed=0)
    data = recipe.data.train if recipe.data is not None else recipe.sft.data if recipe.sft is not None else None
    return task if data is None else replace(task, prompt_format=data.format)


def trainer_options(run: Run, phase: str) -> dict[str, Any]:
    """Options of every Trainer that follow from other sections of the recipe."""
    return {
        "output_dir": str(run.folder.checkpoints_dir(phase)),
        "seed": run.recipe.seed,
    }


def model_options(recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained` from the recipe's model section."""
    dtype = recipe.model.dtype
    options: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if recipe.model.attn_implementation is not None:
        options["attn_implementation"] = recipe.model.attn_implementation
    if recipe.model.quantization is not None:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=recipe.model.quantization == "4bit",
            load_in_8bit=recipe.model.quantization == "8bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return options


def lora_config(recipe: Recipe) -> LoraConfig | None:
    """The adapters of the recipe's model section."""
    lora = recipe.model.lora
    if lora is None:
        return None
    modules = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=modules, task_type="CAUSAL_LM"
    )


# ---- start model and stage one --------------------------------------------------------------------------------------


def start_model(run: Run) -> str:
    """The model that the run starts from; an embedded one is made into the run folder first."""
    if not is_embedded(run.model_name):
        return run.model_name
    folder = run.folder.path / "checkpoints" / "start"
    if run.state.is_main_process and not run.folder.is_done("start"):
        from rltoolkit.embedded.models import save_countdown_model

        save_countdown_model(folder, run.recipe.seed)
        run.folder.finish("start", {"model": str(folder.relative_to(run.folder.path))})
    run.state.wait_for_everyone()
    return str(folder)


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

    def measure(policy: PreTrainedModel) -> float:
        accuracy = _evaluate(run, transformers_backend(run, policy), run.tasks[0], GREEDY, None).estimate.mean
        # one process decides for all: where one stops and another goes on, both wait for ever
        return float(broadcast_object_list([accuracy])[0])

    return [StopAtAccuracy(measure, section.until_accuracy, run.recipe.eval.every_steps or MEASURE_EVERY)]


def run_sft_recipe(loaded: LoadedRecipe) -> Path:
    """Method `sft`: stage one alone, evaluated before and after. Returns the run folder."""
    run = begin_run(prepare_run(loaded))
    if already_finished(run):
        return run.folder.path
    started = time.monotonic()
    start = start_model(run)
    evaluation_phase(run, "evaluate_before", start, step=0)
    trained = sft_phase(run, start, run.folder.model_dir)
    evaluation_phase(run, "evaluate_after", trained, step=run.folder.result("sft")["steps"])
    report(run, time.monotonic() - started)
    return run.folder.path


def free_memory() -> None:
    """Give back what a finished phase held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- evaluation -----------------------------------------------------------------------------------------------------


def evaluation_phase(run: Run, phase: str, model: str, *, step: int) -> None:
    """Evaluate a saved model on the recipe's tasks, greedy and sampled; the main process does it, the others wait."""
    if run.is_done(phase) or not run.tasks:
        return
    if run.state.is_main_process:
        policy = AutoModelForCausalLM.from_pretrained(model, **model_options(run.recipe)).to(run.state.device)
        result = evaluate_tasks(run, policy, step=step, samples_prefix=phase)
        run.folder.finish(phase, result)
        del policy
        free_memory()
    run.state.wait_for_everyone()


def evaluate_tasks(
    run: Run, policy: PreTrainedModel, *, step: int, samples_prefix: str | None = None
) -> dict[str, dict[str, Any]]:
    """Greedy and sampled accuracy of every task, written to the metrics; results by task name."""
    backend = transformers_backend(run, policy)
    results: dict[str, dict[str, Any]] = {}
    for task in run.tasks:
        numbers: dict[str, Any] = {}
        for key in (GREEDY, SAMPLED):
            numbers[key] = _evaluate(run, backend, task, key, samples_prefix)
        results[task.name] = {key: result.to_dict() for key, result in numbers.items()}
        run.metrics.write("evaluate", step, {"task": task.name} | _flat(numbers))
        run.say(_sentence(task.name, step, numbers))
    return results


def transformers_backend(run: Run, policy: PreTrainedModel) -> TransformersBackend:
    """A sampler around a model in memory."""
    return TransformersBackend(
        policy, eos_token_ids=end_token_ids(policy, run.tokenizer), pad_token_id=run.tokenizer.pad_token_id
    )


def _evaluate(run: Run, backend: TransformersBackend, task: Task, key: str, samples_prefix: str | None) -> TaskResult:
    """One task, greedy or sampled at temperature 1, with a progress bar on a terminal."""
    temperature, n = (0.0, 1) if key == GREEDY else (1.0, run.recipe.eval.samples)
    limit = run.recipe.eval.max_new_tokens or run.recipe.rollout.max_new_tokens
    path = None if samples_prefix is None else run.folder.path / "eval" / f"{samples_prefix}.{task.name}.{key}.jsonl"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rewards = run.recipe.rewards
    limits = rewards.pool if rewards is not None else PoolSection()
    with (
        VerifierPool(task.verifier, **limits.model_dump()) as pool,
        Progress(*columns, console=run.console, transient=True, disable=not run.console.is_terminal) as bars,
    ):
        bar = bars.add_task(f"evaluate {task.name} ({key})", total=len(task.questions) * n)
        return evaluate(
            backend,
            run.tokenizer,
            task,
            n=n,
            sampling=SamplingParams(temperature=temperature, max_new_tokens=limit),
            seed=run.recipe.seed,
            pool=pool,
            samples_path=path,
            progress=lambda done, _total: bars.update(bar, completed=done),
        )


def _flat(numbers: dict[str, TaskResult]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, result in numbers.items():
        flat |= {key: result.estimate.mean, f"{key}_low": result.estimate.low, f"{key}_high": result.estimate.high}
        if result.mean_attempts is not None:
            flat[f"{key}_attempts"] = result.mean_attempts
    return flat


def _sentence(task: str, step: int, numbers: dict[str, TaskResult]) -> str:
    parts = [
        f"{key} {_number(result.estimate.mean)} [{_number(result.estimate.low)}, {_number(result.estimate.high)}]"
        for key, result in numbers.items()
    ]
    return f"evaluate: {task} at step {step}: {', '.join(parts)}, {next(iter(numbers.values())).n_questions} questions"


class EvaluationCallback(TrainerCallback):  # type: ignore[misc]
    """Evaluates the policy in training every so many steps."""

    def __init__(self, run: Run, every_steps: int) -> None:
        self._run = run
        self._every = every_steps

    def on_step_end(self, _args: Any, state: Any, _control: Any, model: Any = None, **_kwargs: Any) -> None:
        """Evaluate on the main process, the others wait; the last step is left to the evaluation after training."""
        if state.global_step % self._every or state.global_step >= state.max_steps:
            return
        if state.is_world_process_zero:
            evaluate_tasks(self._run, getattr(model, "module", model), step=state.global_step)
        self._run.state.wait_for_everyone()


def _number(value: float | None) -> str:
    """Three digits; a mean or a bound that does not exist is said to be missing."""
    return "n/a" if value is None or value != value else f"{value:.3f}"


# ---- the end --------------------------------------------------------------------------------------------------------


def already_finished(run: Run) -> bool:
    """Whether an earlier start of this recipe ended; its summary then stays as it is."""
    finished = run.folder.summary_path.exists()
    run.state.wait_for_everyone()
    if finished:
        run.say(f"finished before; see {run.folder.summary_path} and {run.folder.path / 'README.md'}")
    return finished


def report(run: Run, seconds: float) -> None:
    """Write summary, plots and model card, and say where they lie."""
    if not run.state.is_main_process:
        return
    summary = _summary(run, seconds)
    run.folder.write_summary(summary)
    write_plots(read_metrics(run.folder.metrics_path), run.folder.plots_dir)
    write_card(run.folder)
    for line in _closing_lines(run, summary):
        run.say(line)


def _summary(run: Run, seconds: float) -> dict[str, Any]:
    summary: dict[str, Any] = {"method": run.recipe.method, "seed": run.recipe.seed, "seconds": round(seconds, 1)}
    for phase in ("sft", "train"):
        if run.folder.is_done(phase):
            summary[f"{phase}_seconds"] = round(run.folder.result(phase)["seconds"], 1)
    by_task: dict[str, dict[str, Any]] = {task.name: {} for task in run.tasks}
    for when in ("before", "after"):
        if not run.folder.is_done(f"evaluate_{when}"):
            continue
        for task, results in run.folder.result(f"evaluate_{when}").items():
            for key, result in results.items():
                estimate = result["estimate"]
                by_task[task][f"{key}_{when}"] = estimate["mean"]
                by_task[task][f"{key}_{when}_interval"] = [estimate["low"], estimate["high"]]
                if result["mean_attempts"] is not None:
                    by_task[task][f"{key}_{when}_attempts"] = result["mean_attempts"]
    if by_task:
        first = next(iter(by_task))
        summary |= {"task": first, "questions": len(run.tasks[0].questions), **by_task[first]}
    if len(by_task) > 1:
        summary["tasks"] = by_task
    return summary


def _closing_lines(run: Run, summary: dict[str, Any]) -> Sequence[str]:
    lines = ["", f"[bold]Done[/bold] in {summary['seconds']:.0f} s. {run.folder.path}:"]
    for key, label in ((GREEDY, "greedy"), (SAMPLED, "sampled at temperature 1")):
        if f"{key}_before" in summary and f"{key}_after" in summary:
            before, after = (
                f"{_number(summary[f'{key}_{when}'])} [{', '.join(map(_number, summary[f'{key}_{when}_interval']))}]"
                for when in ("before", "after")
            )
            lines.append(f"  {label}: {before} -> {after}  ({summary['questions']} questions of {summary['task']})")
    lines.append(
        "  model/ (loads in transformers), README.md (model card), summary.json, plots/, samples/, metrics.jsonl"
    )
    return lines
