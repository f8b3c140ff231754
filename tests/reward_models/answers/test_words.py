"""Words and choices."""

import pytest

from reward_models.answers.notation import normalise
from reward_models.answers.words import choice_letter, choice_with_content, words_of


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
    ("text", "letter"),
    [("C", "C"), ("(C)", "C"), (r"\text{(C)}", "C"), ("C.", "C"), ("C)", "C"), ("c", None), ("Z", None), ("CC", None)],
)
def test_choices(text: str, letter: str | None) -> None:
    assert choice_letter(text) == letter


def test_choices_with_content() -> None:
    assert choice_with_content(normalise(r"\textbf{(C) }12")) == ("C", "12")
    assert choice_with_content("(A) + 1") is None
    assert choice_with_content("(A)B") is None
