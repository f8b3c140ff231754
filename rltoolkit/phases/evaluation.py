"""Evaluation of a policy on the recipe's tasks, before, during and after training."""

from collections.abc import Callable
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import TrainerCallback

from eval.runner import TaskResult, evaluate
from eval.tasks import Task
from reward_models.pool import VerifierPool
from rltoolkit.phases.setting import Run, free_memory
from rltoolkit.recipe.schema import PoolSection
from rltoolkit.rollout.base import RolloutBackend
from rltoolkit.rollout.ranks import on_main_process
from rltoolkit.types import SamplingParams

__all__ = [
    "GREEDY",
    "SAMPLED",
    "EvaluationCallback",
    "Listener",
    "evaluate_task",
    "evaluate_tasks",
    "evaluation_phase",
    "number",
]

GREEDY, SAMPLED = "accuracy", "sampled"  # as the metrics and summary.json call them

Results = dict[str, dict[str, Any]]
"""What `evaluate_tasks` returns: by task, greedy and sampled, the numbers of a TaskResult as JSON."""
Listener = Callable[[int, Results], None]
"""Called with step and results of an evaluation in training, on every process."""


def evaluation_phase(run: Run, phase: str, model: str, *, step: int) -> None:
    """Evaluate a saved model on the recipe's tasks, greedy and sampled; the main process does it, the others wait."""
    if run.is_done(phase) or not run.tasks:
        return

    def work() -> None:
        with run.rollouts.sampler(model, step) as backend:
            result = evaluate_tasks(run, backend, step=step, samples_prefix=phase)
        run.folder.finish(phase, result)
        del backend
        free_memory()

    on_main_process(f"finish phase {phase}", work)


def evaluate_tasks(run: Run, backend: RolloutBackend, *, step: int, samples_prefix: str) -> Results:
    """Greedy and sampled accuracy of every task, written to the metrics; results by task name."""
    results: dict[str, dict[str, Any]] = {}
    for task in run.tasks:
        numbers: dict[str, Any] = {}
        for key in (GREEDY, SAMPLED):
            numbers[key] = evaluate_task(run, backend, task, key, samples_prefix)
        results[task.name] = {key: result.to_dict() for key, result in numbers.items()}
        run.metrics.write("evaluate", step, {"task": task.name} | _flat(numbers))
        run.say(_sentence(task.name, step, numbers))
    return results


def evaluate_task(run: Run, backend: RolloutBackend, task: Task, key: str, samples_prefix: str | None) -> TaskResult:
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
        f"{key} {number(result.estimate.mean)} [{number(result.estimate.low)}, {number(result.estimate.high)}]"
        for key, result in numbers.items()
    ]
    return f"evaluate: {task} at step {step}: {', '.join(parts)}, {next(iter(numbers.values())).n_questions} questions"


class EvaluationCallback(TrainerCallback):  # type: ignore[misc]
    """Evaluates the policy in training every so many steps, and tells the listener."""

    def __init__(self, run: Run, every_steps: int, listener: Listener | None = None) -> None:
        self._run = run
        self._every = every_steps
        self._listener = listener

    def on_step_end(self, _args: Any, state: Any, _control: Any, model: Any = None, **_kwargs: Any) -> None:
        """Evaluate on the main process, the others wait; the last step is left to the evaluation after training."""
        if state.global_step % self._every or state.global_step >= state.max_steps:
            return

        def work() -> Results:
            with self._run.rollouts.sampler(getattr(model, "module", model), state.global_step) as backend:
                prefix = f"step_{state.global_step:06d}"
                return evaluate_tasks(self._run, backend, step=state.global_step, samples_prefix=prefix)

        results = on_main_process(f"evaluate at step {state.global_step}", work)
        if self._listener is not None:
            self._listener(state.global_step, results)


def number(value: float | None) -> str:
    """Three digits; a mean or a bound that does not exist is said to be missing."""
    return "n/a" if value is None or value != value else f"{value:.3f}"
