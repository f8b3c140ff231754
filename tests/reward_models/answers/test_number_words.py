"""Numbers written in words."""

import pytest

from reward_models.answers.compare import same_answer
from reward_models.answers.number_words import changes_number, in_digits


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("eight", "8"),
        ("Twenty-one", "21"),
        ("one hundred twenty-one", "121"),
        ("one hundred and twenty one", "121"),
        ("one thousand", "1000"),
        ("twelve hundred", "1200"),
        ("two million three hundred thousand and five dollars", "2300005 dollars"),
        ("minus 8", "-8"),
        ("negative eight", "-8"),
        ("Seven apples", "7 apples"),
        ("cat", None),
        ("8", None),
        ("seven-day week", None),
        ("hundred", None),
    ],
)
def test_read_in_digits(text: str, digits: str | None) -> None:
    assert in_digits(text) == digits


@pytest.mark.parametrize("word", ["seven", "hundreds", "fifths", "halves", "third", "minus", "repeating", "mil"])
def test_words_that_change_a_number(word: str) -> None:
    assert changes_number(word)


@pytest.mark.parametrize("word", ["second", "seconds", "apples", "dozen"])
def test_words_that_do_not(word: str) -> None:
    assert not changes_number(word)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("121", "one hundred twenty-one"),
        ("-8", "negative 8"),
        ("-8", "minus 8"),
        ("7", "Seven apples"),
        ("40%", "forty percent"),
    ],
)
def test_equal(number: str, words: str) -> None:
    assert same_answer(number, words).equal
    assert same_answer(words, number).equal


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("2", "two thirds"),
        ("20", "twenty thirty"),
        ("8", "eight nine"),
        ("8", "negative eight"),
        ("10", "ten plus 12"),
        ("12", "twelve feet six inches"),
        ("2", "two and a half"),
        ("100", "one hundred and"),
        ("7", "seven or so"),
    ],
)
def test_different(number: str, words: str) -> None:
    assert not same_answer(number, words).equal
    assert not same_answer(words, number).equal
