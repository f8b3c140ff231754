"""Answers to a task's questions, decoded and judged, and their file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.metrics import JudgedSample
from eval.tasks.base import Question, Task
from reward_models.pool import VerifierPool
from reward_models.verdict import Verdict, checked
from rltoolkit.run.atomic import write_text
from rltoolkit.types import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["judge", "write_samples"]


def judge(
    task: Task,
    tokenizer: "PreTrainedTokenizerBase",
    places: Sequence[int],
    answers: Sequence[Sequence[Sample]],
    pool: VerifierPool | None,
) -> list[JudgedSample]:
    """Decode and judge the answers to the questions at `places` of the task, one group of samples each.

    `pool` must hold the task's verifier; without it the verifier runs in this process.
    """
    flat = [(i, k, sample) for i, group in zip(places, answers, strict=True) for k, sample in enumerate(group)]
    texts = [tokenizer.decode(list(sample.token_ids), skip_special_tokens=True) for _, _, sample in flat]
    references = [task.questions[i].reference for i, _, _ in flat]
    count = task.count_attempts
    return [
        JudgedSample(i, k, sample, text, verdict, None if count is None else count(text))
        for (i, k, sample), text, verdict in zip(flat, texts, _verdicts(task, texts, references, pool), strict=True)
    ]


def _verdicts(
    task: Task, responses: Sequence[str], references: Sequence[str], pool: VerifierPool | None
) -> list[Verdict]:
    if pool is not None:
        return pool.check_many(responses, references)
    return [checked(task.verifier, *pair) for pair in zip(responses, references, strict=True)]


def write_samples(path: Path, task: Task, judged: Sequence[JudgedSample]) -> None:
    """Write one line of JSON per sample; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(_line(task.questions[one.question], one), ensure_ascii=False) for one in judged)
    write_text(path, "".join(line + "\n" for line in lines))


def _line(question: Question, one: JudgedSample) -> dict[str, Any]:
    return {
        "id": question.id,
        "sample": one.index,
        "prompt": question.prompt_text,
        "reference": question.reference,
        "response": one.text,
        "token_ids": list(one.sample.token_ids),
        "stop_reason": str(one.sample.stop_reason),
        "version": one.sample.version,
        "outcome": str(one.verdict.outcome),
        "extracted": one.verdict.extracted,
        "detail": one.verdict.detail,
        "attempts": one.attempts,
    }
