"""The contract that all critics keep: states in, numbers in a stated range out, the rest refused by name."""

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from reward_models.critics import CheckedCritic, Critic, CriticReport, Refusal, checked_critic
from reward_models.errors import VerifierError

MESSAGES = [{"role": "user", "content": "12+30?"}]


class Foreign:
    """A critic of somebody else: any answers, in a stated range."""

    def __init__(self, answers: Any, value_range: tuple[float, float] = (-1.0, 1.0)) -> None:
        self.answers = answers
        self.value_range = value_range
        self.asked: list[tuple[object, ...]] = []

    def score_many(self, prompts: Sequence[object], paths: Sequence[Sequence[str]]) -> Any:
        self.asked += zip(prompts, paths, strict=True)
        return self.answers


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (math.nan, "Foreign gave nan, expected a number in [-1.0, 1.0]"),
        (1.0001, "Foreign gave 1.0001, expected a number in [-1.0, 1.0]"),
        (-math.inf, "Foreign gave -inf, expected a number in [-1.0, 1.0]"),
        (None, "no score"),
        ("0.7", "Foreign gave '0.7', expected a number in [-1.0, 1.0]"),  # float() would take these four
        (b"1", "Foreign gave b'1', expected a number in [-1.0, 1.0]"),
        (True, "Foreign gave True, expected a number in [-1.0, 1.0]"),
        (torch.tensor(True), "Foreign gave True, expected a number in [-1.0, 1.0]"),
        (torch.tensor([0.1, 0.2]), "Foreign gave Tensor, expected a number in [-1.0, 1.0]"),
        ([], "Foreign gave list, expected a number in [-1.0, 1.0]"),
        pytest.param(10**400, "Foreign gave int that is no finite float, expected a number in [-1.0, 1.0]", id="huge"),
    ],
)
def test_what_is_no_score_is_refused_with_the_querys_name(answer: object, reason: str) -> None:
    critic = checked_critic(Foreign([answer, 1.0]))
    assert critic.score_many(["first query", "second"], [["a"], ["b"]]) == [None, 1.0]
    assert critic.last_reasons == [reason, ""]
    assert critic.report == CriticReport(asked=2, refused=1, latest_refusals=(Refusal("first query", reason),))
    assert critic.report.scored == 1
    critic.reset_report()
    assert critic.report == CriticReport()


def test_one_number_in_any_wrapping_is_a_score() -> None:
    answers = [torch.tensor(0.25), torch.tensor([0.5]), np.float32(0.25), np.int64(1), Fraction(1, 2), Decimal("-0.5")]
    critic = checked_critic(Foreign(answers))
    assert critic.score_many(["q"] * 6, [["a"]] * 6) == [0.25, 0.5, 0.25, 1.0, 0.5, -0.5]
    assert checked_critic(Foreign(torch.tensor([0.5, 0.25]))).score_many(["q", "q"], [["a"], ["b"]]) == [0.5, 0.25]


@pytest.mark.parametrize("answers", [None, 0.5, torch.tensor(0.5), "ab", {0.1: "a", 0.2: "b"}, {0.1, 0.2}])
def test_answers_without_an_order_are_refused(answers: object) -> None:
    message = rf"Foreign.score_many gave {type(answers).__name__}; it must give one answer per question"
    with pytest.raises(VerifierError, match=message):
        checked_critic(Foreign(answers)).score_many(["q", "q"], [["a"], ["b"]])


def test_infinity_is_no_score_in_an_unbounded_range_either() -> None:
    critic = checked_critic(Foreign([math.inf, 1e9], (-math.inf, math.inf)))
    assert critic.score_many(["q", "q"], [["a"], ["b"]]) == [None, 1e9]


def test_unreadable_states_are_refused_and_the_others_go_on() -> None:
    foreign = Foreign([0.5, 0.25])
    critic = checked_critic(foreign)
    scores = critic.score_many(
        [b"q", MESSAGES, "q", "q", "q"],  # type: ignore[list-item]
        [["a"], ["a", "b"], "a", ["a", "\ud800"], []],
    )
    assert scores == [None, 0.5, None, None, 0.25]
    assert foreign.asked == [(MESSAGES, ["a", "b"]), ("q", [])]
    assert critic.last_reasons == [
        "the prompt is bytes, expected str or a non-empty list of messages",
        "",
        "the path is str, expected a list of steps",
        "step 1 is no valid text: lone surrogate at character 0",
        "",
    ]


def test_only_the_latest_refusals_are_kept_but_all_are_counted() -> None:
    critic = checked_critic(Foreign([None] * 15))
    for round_name in ("one", "two"):
        critic.score_many([f"{round_name} {i}" for i in range(15)], [["a"]] * 15)
    report = critic.report
    assert (report.asked, report.refused, len(report.latest_refusals)) == (30, 30, 20)
    assert (report.latest_refusals[0].query, report.latest_refusals[-1].query) == ("one 10", "two 14")


def test_wrong_use_is_refused() -> None:
    with pytest.raises(VerifierError, match=r"lengths differ: \{'prompts': 1, 'paths': 2\}"):
        checked_critic(Foreign([])).score_many(["q"], [["a"], ["b"]])
    with pytest.raises(VerifierError, match=r"Foreign\.score_many gave 1 answers to 2 states"):
        checked_critic(Foreign([0.1])).score_many(["q", "q"], [["a"], ["b"]])
    with pytest.raises(VerifierError, match="the critic is dict; expected an object with score_many"):
        CheckedCritic({})
    with pytest.raises(VerifierError, match=r"value_range is \(1.0, 1.0\)"):
        CheckedCritic(Foreign([], (1.0, 1.0)))


def test_no_states_no_call() -> None:
    foreign = Foreign([])
    assert checked_critic(foreign).score_many([], []) == []
    assert foreign.asked == []


def test_a_checked_critic_is_a_critic_and_is_not_wrapped_again() -> None:
    critic = checked_critic(Foreign([]))
    assert isinstance(critic, Critic)
    assert checked_critic(critic) is critic
    assert critic.value_range == (-1.0, 1.0)
