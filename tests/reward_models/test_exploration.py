"""Exploration rewards: bounded, blind to the reference, hard to fool."""

import inspect
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import (
    DistinctSteps,
    ExplorationReward,
    LengthExploration,
    VerifierError,
    count_attempts,
    paper_length,
)
from reward_models.exploration import attempt_lines

RESPONSE = "3+5=8 x\n3*5=15 x\n3+5=8 x\nso I say\n(3+5)*2=16 hit\n\\boxed{(3+5)*2}\nbye\nbye bye"


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, 0.0), (1, 0.001), (250, 0.25), (1000, 1.0), (5000, 1.0), (-3, 0.0)]
)
def test_length(tokens: int, expected: float) -> None:
    assert LengthExploration(1000).score("any text", tokens) == pytest.approx(expected, abs=1e-12)


def test_length_looks_at_the_count_alone() -> None:
    reward = LengthExploration(10)
    assert reward.score("", 5) == reward.score("x" * 1000, 5) == 0.5


def test_lines_before_the_answer() -> None:
    assert attempt_lines(RESPONSE) == ["3+5=8 x", "3*5=15 x", "3+5=8 x", "so I say", "(3+5)*2=16 hit"]
    assert count_attempts(RESPONSE) == 5
    assert count_attempts(RESPONSE, distinct=True) == 4
    assert count_attempts(RESPONSE, r"=\d+") == 4
    assert count_attempts(RESPONSE, r"=\d+", distinct=True) == 3


def test_a_repeated_line_earns_nothing() -> None:
    reward = DistinctSteps(4)
    assert reward.score("a\n\\boxed{1}", 0) == reward.score("a\n" * 50 + "\\boxed{1}", 0) == 0.25


@pytest.mark.parametrize(
    "twin", ["  a  b ", "a\tb", "a\u00a0b", "a\u200b b", "a \u2063b", "a b\r", "a\x0bb", "\ufeffa b", "a b\ud800"]
)
def test_lines_that_look_the_same_are_the_same(twin: str) -> None:
    assert count_attempts(f"a b\n{twin}\n\\boxed{{1}}", distinct=True) == 1


def test_a_pattern_that_never_ends_is_given_up() -> None:
    # 'a' or 'aa', again and again: 2000 letters can be cut in more ways than there is time for
    with pytest.raises(TimeoutError, match=r"the pattern .* took more than 1.0 s on one response"):
        DistinctSteps(3, pattern=r"(\w|\w\w)+$").score(("a" * 1999 + "!\n") * 100, 0)


def test_a_compiled_pattern_keeps_its_flags() -> None:
    assert attempt_lines("STEP 1\nstep 2\nthen", re.compile("^step", re.IGNORECASE)) == ["STEP 1", "step 2"]
    assert attempt_lines("\u00e9\ne", re.compile(r"^\w$", re.ASCII)) == ["e"]


def test_all_line_ends_count() -> None:
    assert count_attempts("a\r\nb\rc\nd\n\\boxed{1}") == 4


def test_without_an_answer_every_line_counts() -> None:
    assert count_attempts("a\nb\n\nc") == 3
    assert count_attempts("") == 0


def test_the_line_of_the_answer_is_no_attempt() -> None:
    assert count_attempts("try this: \\boxed{1}") == 0


def test_steps_saturate() -> None:
    assert DistinctSteps(2).score("a\nb\nc\nd\n\\boxed{1}", 0) == 1.0
    assert DistinctSteps(8).score("a\nb\nc\nd\n\\boxed{1}", 0) == 0.5
    assert DistinctSteps(2, pattern="[cd]").score("a\nb\nc\n\\boxed{1}", 0) == 0.5


@pytest.mark.parametrize("rewardless", [LengthExploration(5), DistinctSteps(5, pattern=r"\d")])
def test_the_reference_never_arrives(rewardless: ExplorationReward) -> None:
    assert list(inspect.signature(rewardless.score).parameters) == ["response", "token_count"]
    assert isinstance(rewardless, ExplorationReward)
    assert pickle.loads(pickle.dumps(rewardless)).score("1\n2\n", 2) == rewardless.score("1\n2\n", 2)


@pytest.mark.parametrize("target", [0, -1, 2.5, True, "3"])
def test_a_target_below_one_is_refused(target: int) -> None:
    with pytest.raises(VerifierError, match=r"target_steps is .*; expected an integer of at least 1"):
        DistinctSteps(target)
    with pytest.raises(VerifierError, match="target_tokens is"):
        LengthExploration(target)


def test_a_pattern_that_does_not_compile_is_refused() -> None:
    with pytest.raises(VerifierError, match=r"pattern is '\(', which is no regular expression"):
        DistinctSteps(3, pattern="(")


@given(st.text(), st.integers(0, 10_000))
def test_any_text_gives_a_number_between_0_and_1(text: str, tokens: int) -> None:
    for reward in (LengthExploration(100), DistinctSteps(3), DistinctSteps(3, pattern=r"\d\s*=")):
        assert 0.0 <= reward.score(text, tokens) <= 1.0


@pytest.mark.parametrize(
    ("response", "length"),
    [
        ("x" * 400 + r"\boxed{1}", 100.0),
        ("  " + "x" * 400 + r"\boxed{1} \boxed{2}", 100.0),
        (r"\boxed{1}", 0.0),
        ("y" * 400, 100.0),
        ("x" * 374 + r"\boxed{\frac{\sqrt{3}}{2}}", 100.0),
    ],
)
def test_paper_length(response: str, length: float) -> None:
    """Before the first simple box; a box the released pattern cannot read is none."""
    assert paper_length(response) == length


LOOP = "wait, let me try 3 + 5 again\n" * 4  # nine words and signs a line, three lines of four said before


@pytest.mark.parametrize(("penalty", "left"), [(0.0, 1.0), (0.5, 0.625), (1.0, 0.25)])
def test_repetition_costs_its_share(penalty: float, left: float) -> None:
    response = LOOP + "\\boxed{8}"
    assert LengthExploration(10, penalty).score(response, 5) == pytest.approx(0.5 * left)
    assert DistinctSteps(2, repetition_penalty=penalty).score(response, 0) == pytest.approx(0.5 * left)


def test_what_stands_behind_the_answer_costs_nothing() -> None:
    response = "first this\nthen that\n\\boxed{8}\n" + LOOP
    assert LengthExploration(10, 1.0).score(response, 5) == 0.5
    assert DistinctSteps(4, repetition_penalty=1.0).score(response, 0) == 0.5


@pytest.mark.parametrize("penalty", [-0.1, 1.5, float("nan"), True, "0.5", None])
def test_a_penalty_that_is_no_share_is_refused(penalty: float) -> None:
    for make in (LengthExploration, DistinctSteps):
        with pytest.raises(VerifierError, match=r"repetition_penalty is .*; expected a number in \[0, 1\]"):
            make(5, repetition_penalty=penalty)


@given(st.text(), st.integers(0, 10_000), st.floats(0, 1))
def test_a_penalty_only_takes_away(text: str, tokens: int, penalty: float) -> None:
    assert 0.0 <= LengthExploration(100, penalty).score(text, tokens) <= LengthExploration(100).score(text, tokens)
    assert 0.0 <= DistinctSteps(3, None, penalty).score(text, tokens) <= DistinctSteps(3).score(text, tokens)
