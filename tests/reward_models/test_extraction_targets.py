"""Extraction against labelled answers; needs the data folder."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reward_models import MathVerifier, VerifierPool
from reward_models.answers.extraction import ExtractionPolicy, extract


@pytest.fixture(scope="module")
def rows(data_file: Callable[[str], Path]) -> list[dict[str, Any]]:
    file = data_file("verifier_answers/answers_public.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_stated_answers_are_read_as_they_were_published(rows: list[dict[str, Any]]) -> None:
    """Every answer in a line "A: ..." and every JSON field, up to escaping and white space.

    In 71 of these rows a box stands in the reasoning before the field, and what was published is always the field.
    """
    stated = {"A: line": "answer line", "json answer field": "JSON field"}
    found = Counter[tuple[str, bool]]()
    for row in rows:
        rule = stated.get(row["answer_format"])
        if rule is None or row["final_answer"] is None:
            continue
        extracted = extract(row["completion"], "marked")
        assert extracted is not None, row["id"]
        assert extracted.rule == rule, row["id"]
        found[rule, _squashed(extracted.text) == _squashed(row["final_answer"])] += 1
    assert found == {("answer line", True): 448, ("JSON field", True): 1560}


def test_no_row_without_a_final_answer_states_one(rows: list[dict[str, Any]]) -> None:
    """Completions that were cut off or refused: nothing is declared in them, whatever numbers they hold."""
    cut_off = [row for row in rows if row["answer_format"] == "none"]
    assert len(cut_off) == 60
    assert [row["id"] for row in cut_off if extract(row["completion"], "marked") is not None] == []


@pytest.mark.parametrize(
    ("policy", "percent", "false_positives"), [("lenient", 99.4, 4), ("marked", 98.0, 0), ("boxed", 73.0, 0)]
)
def test_whole_completions(
    rows: list[dict[str, Any]], policy: ExtractionPolicy, percent: float, false_positives: int
) -> None:
    """Rows of high label confidence; the measured values stand in reward_models/README.md.

    `marked` misses the test-suite rows that are a bare formula, `boxed` all that has no box.
    """
    sure = [row for row in rows if row["label_confidence"] == "high"]
    with VerifierPool(MathVerifier(extraction=policy), workers=2, timeout_s=10.0) as pool:
        verdicts = pool.check_many([row["completion"] for row in sure], [row["gold"] for row in sure])
    scored = [(row, v) for row, v in zip(sure, verdicts, strict=True) if v.is_scorable]
    assert len(scored) == 3349
    agree = sum((v.score == 1.0) == row["label"] for row, v in scored)
    assert 100 * agree / len(scored) >= percent
    assert sum(v.score == 1.0 and not row["label"] for row, v in scored) <= false_positives


def _squashed(text: str) -> str:
    return "".join(text.replace("\\\\", "\\").replace('\\"', "").replace('"', "").split())
