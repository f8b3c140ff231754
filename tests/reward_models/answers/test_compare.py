"""Pairs of answers that are equal, and pairs that are not, both ways round.

The tables beside this file, one pair a line with `||` between, are the policies of `reward_models.answers` in examples.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.answers.compare import same_answer


def pairs(name: str) -> list[tuple[str, str]]:
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    return [(first, second) for first, second in (line.split(" || ") for line in lines)]


EQUAL = pairs("equal_pairs.txt")
DIFFERENT = pairs("different_pairs.txt")


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_equal(first: str, second: str) -> None:
    assert same_answer(first, second).equal
    assert same_answer(second, first).equal
    assert same_answer(first, first).equal


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_different(first: str, second: str) -> None:
    assert not same_answer(first, second).equal
    assert not same_answer(second, first).equal
    assert same_answer(second, second).equal


@pytest.mark.parametrize(
    ("first", "second", "rule"),
    [
        ("7", "007", "compared as numbers"),
        (r"7\text{ cm}", "7", "compared as numbers"),
        ("cats", "Cats", "equal as text"),
        ("cats", "dogs", "compared as words"),
        ("(C)", r"\text{C}", "compared as choices"),
        ("(C)", r"\text{D}", "compared as choices"),
        ("4:30", "4:30 pm", "compared as times of day"),
        ("11_2", "11_3", "compared as numerals"),
        ("27", "The farmer has 27 sheep.", "compared with the number a sentence states"),
        ("x<3", r"(-\infty,3)", "compared as sets of real numbers"),
        ("1,2", "2, 1", "compared item by item"),
        (r"\sqrt{12}", r"2\sqrt{3}", "compared by value"),
        ("y=2x", "y-2x=0", "compared as relations"),
        ("(1,2)", "5", "one has a structure that the other has not"),
        ("5", "9^9^9", "the answer was refused: a power of numbers in an exponent"),
        ("5", "", "the answer is empty"),
    ],
)
def test_the_rule_is_told(first: str, second: str, rule: str) -> None:
    assert same_answer(first, second).rule == rule


def test_long_lists_are_compared_in_order() -> None:
    numbers = [rf"\sqrt{{{n}}}" for n in range(2, 50)]
    spelled = [rf"{n}^{{1/2}}" for n in range(2, 50)]
    assert same_answer(",".join(numbers), ",".join(spelled)).equal
    assert not same_answer(",".join(numbers), ",".join(reversed(spelled))).equal


PIECES_TEXT = (
    r"\frac~\sqrt~{~}~(~)~[~]~\{~\}~^~_~+~-~*~/~=~<~>~\le~\pm~\cup~\infty~\pi~x~y~e~i~1~2~10~0.5~1/2~,~ ~;~\text{ and }"
    r"~\text{cm}~%~\%~$~\$~!~:~&~\\~cm~or~sin~\log_~°~√~²~\begin{pmatrix}~\end{pmatrix}~\in~\mathbb{R}~\setminus~|"
    r"~\left~\right~.~99~the~apples~She has~a.m.~10:30~(A)~\boxed{~\~\,~_8~1,000~...~\circ~\binom~'~\overline{3}~\ne"
    r"~\approx~\lfloor~\rfloor~٣"
)
PIECES = PIECES_TEXT.split("~")
ANSWERS = st.lists(st.sampled_from([*PIECES, "~"]), max_size=9).map("".join)


def hold_laws(first: str, second: str) -> None:
    """Nothing is raised, an answer equals itself, and the order does not matter."""
    assert same_answer(first, first).equal or not first.strip()
    if first.strip() and second.strip():
        assert same_answer(first, second).equal == same_answer(second, first).equal


@settings(max_examples=150)
@given(ANSWERS, ANSWERS)
def test_laws(first: str, second: str) -> None:
    hold_laws(first, second)


@pytest.mark.slow
@settings(max_examples=5000)
@given(ANSWERS, ANSWERS)
def test_laws_at_length(first: str, second: str) -> None:
    hold_laws(first, second)


@pytest.mark.slow
@settings(max_examples=3000)
@given(st.sampled_from([answer for pair in EQUAL for answer in pair]), st.sampled_from(PIECES), st.integers(0, 40))
def test_laws_near_true_answers(answer: str, piece: str, at: int) -> None:
    hold_laws(answer, answer[:at] + piece + answer[at:])
