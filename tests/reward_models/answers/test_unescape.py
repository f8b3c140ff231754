"""LaTeX in JSON strings, escaped or not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.answers.unescape import as_json, unescape


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),  # a JSON parser reads a form feed here
        (r"\binom{5}{2} \beta", r"\binom{5}{2} \beta"),
        (r"x \neq 5", r"x \neq 5"),
        (r"\theta \to \tau, 3 \times 2\text{ cm}", r"\theta \to \tau, 3 \times 2\text{ cm}"),
        (r"\right) \rho", r"\right) \rho"),
        (r"\upsilon", r"\upsilon"),
        (r"\sqrt{2} \% \$5 \{1\} \,", r"\sqrt{2} \% \$5 \{1\} \,"),
        (r"one\ntwo\tthree", "one\ntwo\tthree"),
        (r"one\nnext", "one\nnext"),  # no command is called nnext
        (r"\u00b0C", "°C"),
        (r"\"5\"", '"5"'),
        (r"\begin{matrix} 1 \\\\ 2", r"\begin{matrix} 1 \\ 2"),
        ('a "quote" inside', 'a "quote" inside'),
        ("ends in \\", "ends in \\"),
        ("", ""),
    ],
)
def test_table(written: str, meant: str) -> None:
    assert unescape(written) == meant


@given(st.text(alphabet=st.characters(exclude_characters="\\", exclude_categories=["Cc"])))
def test_what_json_writes_comes_back(text: str) -> None:
    assert unescape(json.dumps(text)[1:-1]) == text


@given(st.text(alphabet='\\/bfnrtu0aeqo"{} '))
def test_what_is_repaired_is_json(text: str) -> None:
    repaired = as_json(text)
    assert '"' in text or isinstance(json.loads(f'"{repaired}"', strict=False), str)
    assert isinstance(unescape(text), str)
