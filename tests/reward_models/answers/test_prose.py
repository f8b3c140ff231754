"""What of a response is written to be read."""

import pytest

from reward_models.answers.prose import without_code


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("no code", "no code"),
        ("a\n```python\nprint(5)\n```\nb", "a\n\nb"),
        ("a\n```output\n5\n```", "a\n"),
        ("a\n```python\nprint(5)", "a\n"),
        ('a\n```json\n{"answer": 5}\n```\nb', 'a\n```json\n{"answer": 5}\n```\nb'),
        ("```\n5\n```", "```\n5\n```"),
        ("```json\n1\n```\n```python\n2\n```\n3", "```json\n1\n```\n\n3"),
        ("the mark ```python inside a line", "the mark ```python inside a line"),
    ],
)
def test_table(text: str, prose: str) -> None:
    assert without_code(text) == prose
