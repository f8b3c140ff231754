"""Verdicts cannot contradict themselves, and a failing verifier is an outcome."""

import functools
import pickle
from typing import Any

import pytest

from reward_models import Outcome, Verdict, Verifier, VerifierError
from reward_models.verdict import checked, refusal


def test_constructors_give_outcome_score_and_text() -> None:
    table = {
        Outcome.CORRECT: Verdict.correct("4", "why"),
        Outcome.WRONG: Verdict.wrong("4", "why"),
        Outcome.NO_ANSWER: Verdict.no_answer("why"),
        Outcome.BAD_REFERENCE: Verdict.bad_reference("why"),
        Outcome.TIMEOUT: Verdict.timeout("why"),
        Outcome.ERROR: Verdict.error("why"),
    }
    assert {outcome: verdict.outcome for outcome, verdict in table.items()} == {o: o for o in Outcome}
    assert [v.score for v in table.values()] == [1.0, 0.0, 0.0, None, None, None]
    assert [v.is_scorable for v in table.values()] == [True, True, True, False, False, False]
    assert [v.extracted for v in table.values()] == ["4", "4", None, None, None, None]
    assert {v.detail for v in table.values()} == {"why"}


@pytest.mark.parametrize(
    ("outcome", "score"),
    [
        (Outcome.CORRECT, 0.0),
        (Outcome.CORRECT, None),
        (Outcome.WRONG, 1.0),
        (Outcome.TIMEOUT, 0.0),
        (Outcome.CORRECT, True),
    ],
)
def test_a_score_that_contradicts_the_outcome_is_refused(outcome: Outcome, score: float | None) -> None:
    with pytest.raises(VerifierError, match=rf"{score!r} for {outcome}; expected {outcome.score!r}"):
        Verdict(outcome, score, "4")


def test_an_outcome_that_is_plain_text_is_refused() -> None:
    text: Any = "correct"
    with pytest.raises(VerifierError, match="expected one of"):
        Verdict(text, 1.0, "4")


def test_outcomes_are_their_names() -> None:
    assert [str(o) for o in Outcome] == ["correct", "wrong", "no_answer", "bad_reference", "timeout", "error"]


def test_verdicts_travel_and_compare() -> None:
    verdict = Verdict.wrong("5", "compared")
    assert pickle.loads(pickle.dumps(verdict)) == verdict
    assert verdict != Verdict.wrong("5", "otherwise")


def test_errors_travel_with_their_message() -> None:
    error = pickle.loads(pickle.dumps(VerifierError("no such column")))
    assert isinstance(error, ValueError)
    assert str(error) == "no such column"


class _Raises:
    def check(self, response: str, reference: str) -> Verdict:
        raise KeyError(response)


class _ReturnsNumber:
    def check(self, response: str, reference: str) -> Any:
        return 1.0


class _Leaves:
    def check(self, response: str, reference: str) -> Any:
        raise SystemExit(3)


class _Fine:
    def check(self, response: str, reference: str) -> Verdict:
        return Verdict.correct(response)


def test_checked_turns_failures_into_outcomes() -> None:
    assert checked(_Fine(), "a", "b") == Verdict.correct("a")
    raised = checked(_Raises(), "a", "b")
    assert raised.outcome is Outcome.ERROR
    assert "KeyError: 'a'" in raised.detail
    number = checked(_ReturnsNumber(), "a", "b")
    assert number.outcome is Outcome.ERROR
    assert "returned float, expected Verdict" in number.detail
    assert checked(_Fine(), b"bytes", "b").outcome is Outcome.ERROR
    assert checked(_Fine(), "a", None).outcome is Outcome.BAD_REFERENCE
    left = checked(_Leaves(), "a", "b")
    assert (left.outcome, left.detail) == (Outcome.ERROR, "_Leaves.check raised SystemExit: 3")


@pytest.mark.parametrize("judge", [refusal, functools.partial(checked, _Fine())])
def test_where_neither_is_text_the_reference_decides(judge: Any) -> None:
    assert judge(None, None).outcome is Outcome.BAD_REFERENCE
    assert judge(None, "b").outcome is Outcome.ERROR


def test_any_class_with_check_is_a_verifier() -> None:
    assert isinstance(_Fine(), Verifier)
    assert not isinstance(object(), Verifier)
