"""Agreement with labelled answers; needs the data folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reward_models import MathVerifier, Outcome, VerifierPool
from reward_models.answers.compare import same_answer

BOXED_FORMATS = {"boxed", "several boxes", "boxed (several, some with leading zeros)"}


@pytest.fixture(scope="module")
def rows(data_file: Callable[[str], Path]) -> list[dict[str, Any]]:
    file = data_file("verifier_answers/answers_public.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_boxed_completions(rows: list[dict[str, Any]]) -> None:
    """Measured: 1232 rows, 8 with a damaged reference left out, 1223 of 1224 agree, no false positive.

    The disagreement states several answers in boxes of sentences of their own; its label is of medium confidence.
    """
    boxed = [row for row in rows if row["answer_format"] in BOXED_FORMATS]
    assert len(boxed) == 1232
    with VerifierPool(MathVerifier(), workers=2, timeout_s=10.0) as pool:
        verdicts = pool.check_many([row["completion"] for row in boxed], [row["gold"] for row in boxed])
    unscorable = [(row, v) for row, v in zip(boxed, verdicts, strict=True) if not v.is_scorable]
    assert len(unscorable) == 8
    assert all(row["gold"] == "4:30p.." and v.outcome is Outcome.BAD_REFERENCE for row, v in unscorable)
    wrong = [row for row, v in zip(boxed, verdicts, strict=True) if v.is_scorable and (v.score == 1.0) != row["label"]]
    assert [row["gold"] for row in wrong if not row["label"]] == []
    assert {row["answer_format"] for row in wrong} == {"several boxes"}
    assert len(wrong) == 1


def test_equality_alone(rows: list[dict[str, Any]]) -> None:
    """Measured on rows of high confidence: 3212 of 3217 agree (99.84 %), no false positive; asserted: 99.7 % and 2.

    reward_models/README.md lists the rest with reasons.
    """
    known = [row for row in rows if row["final_answer"] is not None and row["label_confidence"] == "high"]
    assert len(known) == 3225
    with VerifierPool(MathVerifier(), workers=2, timeout_s=10.0) as pool:
        verdicts = pool.check_many(
            [f"\\boxed{{{row['final_answer']}}}" for row in known], [row["gold"] for row in known]
        )
    scored = [(row, v) for row, v in zip(known, verdicts, strict=True) if v.is_scorable]
    agree = sum((v.score == 1.0) == row["label"] for row, v in scored)
    assert len(scored) == 3217
    assert agree / len(scored) >= 0.997
    assert sum(v.score == 1.0 and not row["label"] for row, v in scored) <= 2


def test_few_answers_reach_algebra(rows: list[dict[str, Any]]) -> None:
    """Speed without a clock: nearly all rows are decided as text or numbers, a handful by math-verify."""
    known = [row for row in rows if row["final_answer"] is not None]
    rules = [same_answer(row["gold"], row["final_answer"]).rule for row in known]
    cheap = sum(rule in {"equal as text", "compared as numbers"} for rule in rules)
    assert cheap / len(known) > 0.9
    assert rules.count("compared by algebra") < 10


def test_every_reference_equals_itself(rows: list[dict[str, Any]]) -> None:
    verifier = MathVerifier()
    for gold in {row["gold"] for row in rows if row["gold"] != "4:30p.."}:
        response = verifier.gold_response(gold)
        assert response is not None, gold
        assert verifier.check(response, gold).outcome is Outcome.CORRECT, gold
        assert same_answer(gold, f" {gold} ").equal
