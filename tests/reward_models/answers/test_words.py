"""Words, choices and sentences."""

import pytest

from reward_models.answers.notation import normalise
from reward_models.answers.words import (
    choice_letter,
    choice_with_content,
    number_in_words,
    stated_number,
    words_of,
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (r"\text{Tuesday}", "tuesday"),
        ("Evelyn", "evelyn"),
        (r"\text{VW}", "vw"),
        (r"\text{the even numbers}", "even numbers"),
        ("abc", None),
        (r"\text{C}", None),
        (r"x \text{ cm}", None),
        ("5 cats", None),
        ("infinity", None),
    ],
)
def test_words(answer: str, words: str | None) -> None:
    assert words_of(answer) == words


@pytest.mark.parametrize(
    ("text", "value"), [("eight", 8), (r"\text{Twenty-one}", 21), ("one hundred", 100), ("cat", None)]
)
def test_numbers_in_words(text: str, value: int | None) -> None:
    assert number_in_words(text) == value


@pytest.mark.parametrize(
    ("text", "letter"),
    [("C", "C"), ("(C)", "C"), (r"\text{(C)}", "C"), ("C.", "C"), ("C)", "C"), ("c", None), ("Z", None), ("CC", None)],
)
def test_choices(text: str, letter: str | None) -> None:
    assert choice_letter(text) == letter


def test_choices_with_content() -> None:
    assert choice_with_content(normalise(r"\textbf{(C) }12")) == ("C", "12")
    assert choice_with_content("(A) + 1") is None
    assert choice_with_content("(A)B") is None


@pytest.mark.parametrize(
    ("sentence", "number"),
    [
        ("The farmer has 27 sheep.", "27"),
        ("They can save $28 if they take the bus 5 times.", r"$28"),
        ("It will take 7 more days to read all 300 pages.", "7"),
        ("The tower is 1,250.5 feet high.", "1,250.5"),
        ("The air is -5 outside.", "-5"),
        ("200 tiles times 12 dollars per tile = 2400", "2400"),
        ("Total cost: 50", "50"),
        ("The least number of trips in 8 hours is 12 trips.", "12"),
        ("If x is 3, then the answer is 5.", None),
        ("First, take 20 from both sides: x = 120 - 20. So it was 80 cm.", "80"),
        ("There are more than 5 cats", None),
        ("It takes at least 5 days", None),
        ("The result is 5 times 3", None),
        ("For 5 apples he pays a lot", None),
        ("I guess 5", None),
        ("The answer is not 5", None),
        ("It is 5 or 6", None),
        ("It is about 5 miles", None),
        ("After selling 5 he has 3 left", None),
        ("He bought 5 apples and 3 pears", None),
        ("The area is 5x", None),
        ("The area is 5 * 3", None),
        ("The area is 5 squared", None),
        ("The root is 2 sqrt(3)", None),
        ("so the line is y = 2x + 5 = 5", None),
        ("the answer is C", None),
        ("5", None),
        ("cm 5", None),
    ],
)
def test_sentences(sentence: str, number: str | None) -> None:
    assert stated_number(sentence) == number
