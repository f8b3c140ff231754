"""Ask a policy the questions of a task, judge its answers, and say how sure the result is."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.choice import SamplerChoice
from eval.judging import judge, write_samples
from eval.metrics import JudgedSample, mean, outcome_counts, scores_by_question, truncated_fraction
from eval.sampler import open_sampler
from eval.stats import Estimate, mean_with_interval
from eval.tasks import load_task
from eval.tasks.base import PromptFormat, Task
from reward_models.pool import VerifierPool
from reward_models.verdict import Outcome
from rltoolkit.data.prompts import Prompt, prompt_token_ids
from rltoolkit.data.tokenizer import load_tokenizer, require_chat_template
from rltoolkit.errors import DataError
from rltoolkit.rollout.base import RolloutBackend, request_seed
from rltoolkit.run.atomic import write_json
from rltoolkit.run.versions import collect_versions
from rltoolkit.types import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Progress", "TaskResult", "evaluate", "run_tasks"]

RESULTS = "results.json"

TRANSFORMERS = SamplerChoice()

CHUNK_SAMPLES = 1024
"""Samples asked for at a time: enough to batch by length, few enough to show progress."""

Progress = Callable[[int, int], None]
"""Called with the samples done and the samples in all."""


@dataclass(frozen=True)
class TaskResult:
    """The numbers of one evaluation."""

    task: str
    estimate: Estimate
    """Accuracy: the mean over scored questions of the fraction right, with its interval."""
    outcomes: dict[str, int]
    """Samples per outcome; bad_reference, timeout and error could not be scored and are not in the estimate."""
    truncated: float
    """Fraction of samples cut off by the limit on new tokens."""
    mean_tokens: float
    """Per sample, the end-of-sequence token included."""
    mean_attempts: float | None
    """Attempts per sample, None for tasks that cannot count them."""
    n_questions: int
    samples_per_question: int
    sampling: SamplingParams
    seed: int
    seconds: float
    """Wall time, generation and judging."""

    @property
    def unscorable(self) -> int:
        """Number of samples that nothing can be said about; they are left out of the estimate."""
        return sum(count for name, count in self.outcomes.items() if Outcome(name).score is None)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON; a bound that does not exist (NaN) is None there."""
        estimate = {key: _finite(value) for key, value in self.estimate._asdict().items()}
        return asdict(self) | {"estimate": estimate, "unscorable": self.unscorable}


def evaluate(
    backend: RolloutBackend,
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    *,
    n: int = 1,
    sampling: SamplingParams | None = None,
    seed: int = 0,
    pool: VerifierPool | None = None,
    samples_path: Path | None = None,
    progress: Progress | None = None,
) -> TaskResult:
    """Draw `n` samples for every question of `task`, judge them, and return the numbers.

    `sampling` None takes the task's. `pool` judges in processes with a time limit and must hold the task's
    verifier; without it the verifier runs here, unlimited. Every sample is written as a line of JSON to
    `samples_path`, which appears when all are there. The same seed asks the same random numbers of every
    policy, whatever its version, so that two policies differ less by chance. Raises DataError for n < 1 or
    several greedy samples, ModelError for a chat without a chat template, RolloutError as the backend does.
    """
    sampling = task.sampling if sampling is None else sampling
    _check(n, sampling)
    start = time.monotonic()
    prompts = _prompt_ids(task, tokenizer)
    judged: list[JudgedSample] = []
    for chunk in _chunks(len(prompts), n):
        seeds = [request_seed(seed, 0, prompts[i], i) for i in chunk]
        answers = backend.generate([prompts[i] for i in chunk], n, sampling, seeds)
        judged += judge(task, tokenizer, chunk, answers, pool)
        if progress is not None:
            progress(len(judged), len(prompts) * n)
    if samples_path is not None:
        write_samples(samples_path, task, judged)
    attempts = [one.attempts for one in judged if one.attempts is not None]
    return TaskResult(
        task=task.name,
        estimate=mean_with_interval(scores_by_question(judged)),
        outcomes=outcome_counts(judged),
        truncated=truncated_fraction(judged),
        mean_tokens=mean([len(one.sample.token_ids) for one in judged]),
        mean_attempts=mean(attempts) if task.count_attempts is not None else None,
        n_questions=len(task.questions),
        samples_per_question=n,
        sampling=sampling,
        seed=seed,
        seconds=time.monotonic() - start,
    )


def _check(n: int, sampling: SamplingParams) -> None:
    if n < 1:
        raise DataError(f"n is {n}; ask for at least 1 sample per question")
    if sampling.greedy and n > 1:
        raise DataError(
            f"n is {n} at temperature 0, which would give {n} times the same sample; set n to 1, or a temperature"
        )


def _prompt_ids(task: Task, tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Encode the questions exactly as training prompts of the same format are."""
    texts: list[Prompt] = [question.prompt_text for question in task.questions]
    if task.prompt_format == "chat":
        require_chat_template(tokenizer, f"prompt_format of task {task.name}")
        texts = [[{"role": "user", "content": question.prompt_text}] for question in task.questions]
    return prompt_token_ids(texts, tokenizer)


def _chunks(questions: int, n: int) -> Iterator[range]:
    size = max(1, CHUNK_SAMPLES // n)
    for start in range(0, questions, size):
        yield range(start, min(start + size, questions))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def run_tasks(
    model_path: str | Path,
    tasks: Sequence[str],
    *,
    n: int = 1,
    limit: int | None = None,
    output: Path | None = None,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    sampler: SamplerChoice = TRANSFORMERS,
    show_progress: bool = True,
) -> list[TaskResult]:
    """Evaluate a model folder (or hub name) on tasks known by name; what `rltoolkit eval` does.

    `temperature` None is greedy for n = 1 and 1.0 for more; `max_new_tokens` and `prompt_format` None take
    the task's; `limit` questions are chosen by `seed`. `sampler` says who samples; servers must see the
    model's folder. Into the folder `output` go `results.json` and `samples-<task>.jsonl`; a folder that holds
    results already is refused. Raises DataError, ModelError or RolloutError; tasks, settings and the tokenizer
    are checked before any weight is loaded.
    """
    if output is not None and (output / RESULTS).exists():
        raise DataError(f"{output / RESULTS} exists already; give another output folder, nothing is overwritten")
    if not tasks:
        raise DataError("no task given; name at least one")
    if temperature is None:
        temperature = 0.0 if n == 1 else 1.0
    loaded = [
        _asked(load_task(name, limit=limit, seed=seed), temperature, max_new_tokens, prompt_format)
        for name in dict.fromkeys(tasks)
    ]
    tokenizer = load_tokenizer(model_path)
    for task in loaded:
        _check(n, task.sampling)
        _prompt_ids(task, tokenizer)
    with open_sampler(sampler, model_path, tokenizer, seed=seed) as backend:
        results = [_run_task(backend, tokenizer, task, n, seed, output, show_progress) for task in loaded]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        settings = {"model": str(model_path), **_said(sampler), "versions": collect_versions()}
        write_json(output / RESULTS, settings | {"results": [result.to_dict() for result in results]})
    return results


def _said(sampler: SamplerChoice) -> dict[str, Any]:
    """Return who sampled, for JSON; a server's dtype is its own."""
    if sampler.backend == "vllm-server":
        return {"backend": sampler.backend, "urls": list(sampler.urls)}
    return {"backend": sampler.backend, "dtype": sampler.dtype}


def _asked(task: Task, temperature: float, max_new_tokens: int | None, prompt_format: PromptFormat | None) -> Task:
    """Return the task with what the caller asked for in place of its own settings."""
    sampling = replace(task.sampling, temperature=temperature)
    if max_new_tokens is not None:
        sampling = replace(sampling, max_new_tokens=max_new_tokens)
    return replace(task, sampling=sampling, prompt_format=prompt_format or task.prompt_format)


def _run_task(
    backend: RolloutBackend,
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    n: int,
    seed: int,
    output: Path | None,
    show_progress: bool,
) -> TaskResult:
    """Evaluate one task with a pool of its own and a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    path = None if output is None else output / f"samples-{task.name}.jsonl"
    with VerifierPool(task.verifier) as pool, Bar(console=Console(stderr=True), disable=not show_progress) as bar:
        row = bar.add_task(task.name, total=None)

        def shown(done: int, total: int) -> None:
            bar.update(row, completed=done, total=total)

        return evaluate(backend, tokenizer, task, n=n, seed=seed, pool=pool, samples_path=path, progress=shown)
