"""The share of a text that repeats itself: known values, and what cannot hide it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.repetition import repeated_share
from rltoolkit.embedded.countdown import countdown_rows

SENTENCE = "the sum of the first two is larger than what we need here"  # 13 words
PROSE = (
    "First I add the two smaller numbers, which gives eight. Eight times two is sixteen, and that is the target. "
    "To be sure I compute it once more from the other side: sixteen over two is eight, and five and three are eight."
)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        (" \n\t\n", 0.0),
        ("one", 0.0),
        (PROSE, 0.0),
        ("a b\nc d\na b", 2 / 6),  # a line again
        ("a b\nc d\nA  B\n", 2 / 6),  # letters and white space make no new line
        ("a b\na\u200b b\n", 2 / 4),  # nor does what cannot be seen
        (f"{SENTENCE}, or so. Yes, {SENTENCE}!", 13 / 33),  # a run inside other lines
        ("x + 1 = 3 so\nx + 1 = 4 so", 0.0),  # alike, and new
    ],
)
def test_known_shares(text: str, share: float) -> None:
    assert repeated_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "part", ["wait ", "wait, wait! ", "a", "abc", "3+5=8,", "\u8ba9\u6211\u518d\u8bd5\u4e00\u6b21", "no\n", "."]
)
def test_a_loop_is_nearly_all_repetition_however_it_is_spelled(part: str) -> None:
    assert repeated_share(part * 1000) > 0.97


def test_n_equal_parts_have_one_new_among_them() -> None:
    assert repeated_share((SENTENCE + ".\n") * 5) == pytest.approx(4 / 5)


def test_a_counter_in_front_hides_nothing() -> None:
    text = "".join(f"attempt {number}: {SENTENCE}\n" for number in range(50))
    assert repeated_share(text) > 0.75


def test_an_honest_search_repeats_little() -> None:
    shares = [repeated_share(row["completion"]) for row in countdown_rows("train", 300)]
    assert sum(shares) / len(shares) < 0.05
    tried_twice = [
        repeated_share(row["completion"].split("\n")[0] + "\n" + row["completion"])
        for row in countdown_rows("train", 300)
    ]
    assert min(tried_twice) > 0.15


@given(st.text())
def test_always_a_share(text: str) -> None:
    assert 0.0 <= repeated_share(text) <= 1.0


@given(st.lists(st.sampled_from("abcdefgh \n"), max_size=200).map("".join).filter(str.strip))
def test_of_a_text_said_twice_at_least_half_is_repetition(text: str) -> None:
    assert repeated_share(f"{text}\n{text}") >= 0.5
