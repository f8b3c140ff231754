"""The contract that all oracles keep, and the report."""

import math
import pickle
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward_models.errors import VerifierError
from reward_models.local_models.prompts import Prompt
from reward_models.preference import (
    BaseOracle,
    CheckedOracle,
    MatrixOracle,
    OracleReport,
    Preference,
    PreferenceOracle,
    checked_oracle,
)

PROBABILITY = st.floats(0.0, 1.0)
GAME = [[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]]


class Scripted(BaseOracle):
    """Gives the answers of a list; remembers what it was asked."""

    def __init__(self, answers: Sequence[Preference]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def _compare(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        self.asked += zip(firsts, seconds, strict=True)
        return self.answers


# --- one preference ---


@given(PROBABILITY, PROBABILITY)
def test_averaging_both_orders_is_antisymmetric(front_a: float, front_b: float) -> None:
    one = Preference.from_both_orders(front_a, front_b).probability
    other = Preference.from_both_orders(front_b, front_a).probability
    assert one is not None
    assert other is not None
    assert one + other == pytest.approx(1.0, abs=1e-15)
    assert one == pytest.approx((front_a + 1 - front_b) / 2, abs=1e-15)


@given(PROBABILITY)
def test_an_oracle_that_looks_at_the_place_alone_is_exactly_a_tie(front: float) -> None:
    assert Preference.from_both_orders(front, front).is_tie


@pytest.mark.parametrize("value", [math.nan, -0.01, 1.01, math.inf])
def test_what_is_no_probability_cannot_be_a_preference(value: float) -> None:
    with pytest.raises(VerifierError, match=r"expected a number in \[0, 1\]"):
        Preference(value)
    with pytest.raises(VerifierError, match="first_in_front"):
        Preference(0.5, first_in_front=value)


def test_a_failure_is_no_tie_and_no_majority() -> None:
    failed = Preference.failed("why")
    assert (failed.probability, failed.is_decided, failed.is_tie, failed.majority) == (None, False, False, None)
    assert [Preference(p).majority for p in (0.0, 0.49, 0.5, 0.51, 1.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert Preference.tie("equal").is_tie


# --- what all oracles do ---


def test_equal_texts_are_a_tie_without_asking_and_unreadable_ones_fail() -> None:
    oracle = Scripted([Preference(0.9)])
    messages = [{"role": "user", "content": "q"}]
    answers = oracle.prefer_many(
        ["q", messages, "q", b"q", "q"],  # type: ignore[list-item]
        ["same", "a", "\ud800", "a", None],  # type: ignore[list-item]
        ["same", "b", "b", "b", "b"],
    )
    assert oracle.asked == [("a", "b")]
    assert [answer.probability for answer in answers] == [0.5, 0.9, None, None, None]
    assert [answer.detail for answer in answers[2:]] == [
        "the first text is no valid text: lone surrogate at character 0",
        "the prompt is bytes, expected str or a non-empty list of messages",
        "the first text is NoneType, expected str",
    ]
    report = oracle.report
    assert (report.comparisons, report.identical, report.ties, report.failed) == (5, 1, 1, 3)
    assert report.last_failure == "the first text is NoneType, expected str"


def test_equal_unreadable_texts_are_a_failure_and_no_tie() -> None:
    assert Scripted([]).prefer("q", "\ud800", "\ud800") is None


def test_an_empty_text_is_a_text() -> None:
    assert Scripted([Preference(0.2)]).prefer("", "", "b") == 0.2


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(VerifierError, match=r"lengths differ: \{'prompts': 1, 'firsts': 2, 'seconds': 1\}"):
        Scripted([]).prefer_many(["q"], ["a", "b"], ["c"])
    assert Scripted([]).prefer_many([], [], []) == []


def test_an_oracle_with_too_few_answers_is_refused() -> None:
    with pytest.raises(VerifierError, match="gave 1 answers to 2 pairs"):
        Scripted([Preference(0.5)]).prefer_many(["q", "q"], ["a", "b"], ["c", "c"])


def test_the_report_measures_the_place_and_can_be_reset() -> None:
    pairs = [(0.9, 0.7), (0.9, 0.1), (0.4, 0.4), (0.5, 0.8)]  # two in which the same place wins
    oracle = Scripted([*(Preference.from_both_orders(*pair) for pair in pairs), Preference(0.3)])
    oracle.prefer_many(["q"] * 5, list("abcde"), ["x"] * 5)
    report = oracle.report
    assert (report.comparisons, report.both_orders, report.inconsistent, report.ties) == (5, 4, 2, 1)
    assert report.position_bias == pytest.approx(sum(a + b for a, b in pairs) / 8 - 0.5)
    assert report.order_gap == pytest.approx((0.6 + 0.0 + 0.2 + 0.3) / 4)
    assert report.order_gap_max == pytest.approx(0.6)
    oracle.reset_report()
    assert oracle.report == OracleReport()
    assert oracle.report.position_bias is None
    assert oracle.report.order_gap is None


# --- a given game ---


def test_a_matrix_answers_by_name() -> None:
    oracle = MatrixOracle(["x", "y", "z"], GAME)
    assert isinstance(oracle, PreferenceOracle)
    for i, first in enumerate("xyz"):
        for j, second in enumerate("xyz"):
            assert oracle.prefer("any prompt", first, second) == GAME[i][j]
    assert oracle.prefer_many(["q", "q"], ["x", "x"], ["y", "w"])[1] == Preference.failed(
        "the response 'w' is not in the matrix"
    )
    assert pickle.loads(pickle.dumps(oracle)).prefer("q", "z", "x") == 0.9


@pytest.mark.parametrize(
    ("responses", "matrix", "message"),
    [
        (["x", "y"], [[0.5, 0.8], [0.3, 0.5]], r"matrix\[0\]\[1\] is 0.8; expected 1 - matrix\[1\]\[0\] = 0.7"),
        (["x", "y"], [[0.4, 0.8], [0.2, 0.5]], r"matrix\[0\]\[0\] is 0.4; expected 0.5 on the diagonal"),
        (["x", "y"], [[0.5, 1.2], [-0.2, 0.5]], r"matrix\[0\]\[1\] is 1.2; expected a probability"),
        (["x", "y"], [[0.5, math.nan], [0.2, 0.5]], r"matrix\[0\]\[1\] is nan"),
        (["x", "y"], [[0.5, 0.8], [0.2]], r"rows of lengths \[2, 1\]; expected 2 rows of 2"),
        (["x"], [[0.5, 0.8], [0.2, 0.5]], r"expected 1 rows of 1"),
        (["x", "x"], [[0.5, 0.5], [0.5, 0.5]], "are not all different"),
    ],
)
def test_a_matrix_that_is_no_game_is_refused(responses: list[str], matrix: list[list[float]], message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        MatrixOracle(responses, matrix)


# --- oracles of others ---


class Raw:
    """A foreign oracle: any answers, given by the two texts."""

    def __init__(self, answers: dict[tuple[str, str], object]) -> None:
        self.answers = answers

    def prefer_many(self, prompts: list[str], firsts: list[str], seconds: list[str]) -> list[object]:
        return [self.answers[pair] for pair in zip(firsts, seconds, strict=True)]


class Single:
    def prefer(self, prompt: str, first: str, second: str) -> float:
        return 0.7 if first < second else 0.5


def test_a_foreign_oracle_is_asked_in_both_orders_and_its_gap_measured() -> None:
    oracle = checked_oracle(Single())
    assert oracle.prefer("q", "a", "b") == pytest.approx(0.6)
    assert oracle.prefer("q", "b", "a") == pytest.approx(0.4)
    assert oracle.report.order_gap == pytest.approx(0.2)
    assert oracle.report.position_bias == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("forward", "backward", "reason"),
    [
        (math.nan, 0.5, "Raw with the first text in front: nan, expected a number in [0, 1]"),
        (0.5, 1.5, "Raw with the second text in front: 1.5, expected a number in [0, 1]"),
        (-0.1, 0.5, "Raw with the first text in front: -0.1, expected a number in [0, 1]"),
        (None, 0.5, "Raw with the first text in front: no answer"),
        ("0.5", 0.5, "Raw with the first text in front: '0.5', expected a number in [0, 1]"),
        (True, False, "Raw with the first text in front: True, expected a number in [0, 1]"),
        (torch.tensor(True), 0.5, "Raw with the first text in front: True, expected a number in [0, 1]"),
        pytest.param(
            10**400,
            0.5,
            "Raw with the first text in front: int that is no finite float, expected a number in [0, 1]",
            id="huge",
        ),
        ([0.5], 0.5, "Raw with the first text in front: list, expected a number in [0, 1]"),
        (Preference.failed("down"), 0.5, "Raw with the first text in front: down"),
    ],
)
def test_what_is_no_probability_leaves_the_pair_out(forward: object, backward: object, reason: str) -> None:
    oracle = checked_oracle(Raw({("a", "b"): forward, ("b", "a"): backward, ("c", "d"): 1.0, ("d", "c"): 0.0}))
    answers = oracle.prefer_many(["q", "q"], ["a", "c"], ["b", "d"])
    assert answers == [Preference.failed(reason), Preference.from_both_orders(1.0, 0.0)]
    assert (oracle.report.failed, oracle.report.both_orders) == (1, 1)


def test_numbers_of_other_libraries_are_numbers() -> None:
    answers = {("a", "b"): np.float32(0.75), ("b", "a"): torch.tensor(0.25)}
    assert checked_oracle(Raw(answers)).prefer("q", "a", "b") == 0.75


def test_our_own_oracles_are_left_as_they_are_and_others_must_have_a_method() -> None:
    ours = MatrixOracle(["x", "y", "z"], GAME)
    assert checked_oracle(ours) is ours
    with pytest.raises(VerifierError, match="the oracle is dict, which has neither prefer_many"):
        CheckedOracle({})


def test_a_foreign_oracle_that_loses_answers_is_refused() -> None:
    class Short:
        def prefer_many(self, prompts: object, firsts: object, seconds: object) -> list[float]:
            return [0.5]

    class Forgetful:
        def prefer_many(self, prompts: object, firsts: object, seconds: object) -> None:
            """Has no return."""

    with pytest.raises(VerifierError, match=r"Short\.prefer_many gave 1 answers to 2 pairs"):
        checked_oracle(Short()).prefer("q", "a", "b")
    with pytest.raises(VerifierError, match=r"Forgetful\.prefer_many gave NoneType; it must give one answer"):
        checked_oracle(Forgetful()).prefer("q", "a", "b")


def test_importing_loads_no_heavy_package() -> None:
    code = (
        "import sys, reward_models.preference, reward_models.critics\n"
        "print(sorted({'torch', 'transformers', 'sympy', 'openai', 'jsonschema', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
