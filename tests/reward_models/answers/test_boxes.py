"""Where boxes begin and end."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.answers.boxes import first_simple_box, last_box

# The extraction table of the RLSP notes: response, released trainer, last balanced box.
TABLE = [
    (r"so \boxed{42}", "42", "42"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", r"\frac{1}{2}"),
    (r"\boxed{\frac{\sqrt{3}}{2}}", None, r"\frac{\sqrt{3}}{2}"),
    (r"try \boxed{7}. wait, \boxed{8}", "7", "8"),
    (r"\boxed 5", None, None),
    (r"\fbox{3}", None, None),
    (r"\boxed{}", "", ""),
]


@pytest.mark.parametrize(("text", "released", "balanced"), TABLE)
def test_table(text: str, released: str | None, balanced: str | None) -> None:
    first, last = first_simple_box(text), last_box(text)
    assert (None if first is None else first.content) == released
    assert (None if last is None else last.content) == balanced


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        (r"\boxed{8", None),
        (r"\boxed{7} then \boxed{8", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{[0, 3\}}", r"[0, 3\}"),
        (r"\boxed {6}", "6"),
        (r"} } \boxed{6} }", "6"),
        (r"{ { \boxed{6}", "6"),
        (r"\boxed{\begin{matrix} 1 \\ 2 \\\end{matrix}}", r"\begin{matrix} 1 \\ 2 \\\end{matrix}"),
        ('{"answer": "\\\\boxed{9}"}', "9"),
        ("\\boxed{two\nlines}", "two\nlines"),
    ],
)
def test_last_box(text: str, content: str | None) -> None:
    box = last_box(text)
    assert (None if box is None else box.content) == content


def test_positions_are_those_of_the_whole_command() -> None:
    text = r"try \boxed{7}. wait, \boxed{\frac12}!"
    last, first = last_box(text), first_simple_box(text)
    assert last is not None
    assert first is not None
    assert text[last.start : last.end] == r"\boxed{\frac12}"
    assert text[first.start : first.end] == r"\boxed{7}"


@given(
    before=st.text(max_size=30), content=st.text(alphabet="a1+ \\,", max_size=20), after=st.text("xyz. ", max_size=9)
)
def test_a_box_behind_any_text_is_found(before: str, content: str, after: str) -> None:
    content = content.replace("\\", "\\,")  # no lone backslash in front of the closing brace
    box = last_box(f"{before} \\boxed{{{content}}}{after}")
    assert box is not None
    assert box.content == content


@pytest.mark.parametrize(
    "text", ["\\boxed{" * 200_000, "\\boxed" + "{" * 1_000_000, "\\boxed{{}" * 150_000, "\\boxed" + " " * 1_000_000]
)
def test_a_megabyte_without_a_closed_box_takes_no_long_time(text: str) -> None:
    start = time.perf_counter()
    assert last_box(text) is None
    assert first_simple_box(text) is None
    # Two passes take about a second on a slow core; going back over the text would take hours.
    assert time.perf_counter() - start < 20
