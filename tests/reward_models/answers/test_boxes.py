"""Where boxes begin and end."""

from itertools import pairwise

import pytest
from growth import growth
from hypothesis import given
from hypothesis import strategies as st

from reward_models.answers.boxes import balanced_boxes, first_simple_box, last_box, last_boxes

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
    ("text", "contents"),
    [
        (r"$a = \boxed{-1}$ and $a = \boxed{2}.$", ["-1", "2"]),
        (r"$$\boxed{(98, 2)} \quad \text{and} \quad \boxed{(99, 503)}$$", ["(98, 2)", "(99, 503)"]),
        (r"$\boxed{1}, \boxed{2}$ or $\boxed{3}$", ["1", "2", "3"]),
        (r"\boxed{x = \boxed{1}, y = \boxed{2}}", ["1", "2"]),
        (r"first \boxed{0}. Then $x_1 = \boxed{1}$; $x_2 = \boxed{2}$", ["1", "2"]),
        # Anything else between two boxes makes the last one a new answer.
        (r"\boxed{5}, wait, \boxed{6}", ["6"]),
        (r"\boxed{5} and then \boxed{6}", ["6"]),
        (r"\boxed{5} \boxed{6}", ["6"]),
        (r"\boxed{1/2} = \boxed{0.5}", ["0.5"]),
        ("\\boxed{5},\n\n\\boxed{6}", ["6"]),
        (
            r"\boxed{30^\circ}. Then the third angle is $180^\circ - 30^\circ - 45^\circ = \boxed{105^\circ}$",
            ["105^\\circ"],
        ),
        (r"\boxed{5} and \boxed{6", ["5"]),
        (r"\boxed{5", None),
        ("5", None),
    ],
)
def test_boxes_side_by_side_are_one_list(text: str, contents: list[str] | None) -> None:
    assert last_boxes(text) == contents


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r'{"answer": "\\boxed{\\frac{1}{2}}"}', r"\frac{1}{2}"),
        (r'"\\boxed{\\{1, 2\\}}"', r"\{1, 2\}"),
        (r'"\\boxed{\\begin{matrix} 1 \\\\ 2 \\end{matrix}}"', r"\begin{matrix} 1 \\ 2 \end{matrix}"),
        (r'"\\boxed{\frac12}"', r"\frac12"),  # escaped by half: what is single already stays
        (r'"\\boxed{\begin{matrix} 1 \\ 2 \end{matrix}}"', r"\begin{matrix} 1 \\ 2 \end{matrix}"),
        (r"x \\\boxed{1 \\ 2}", r"1 \\ 2"),  # a line break before the box, none of it escaped
        (r"x \\\boxed{\begin{matrix} 1 \\ 2 \end{matrix}}", r"\begin{matrix} 1 \\ 2 \end{matrix}"),  # a line break
    ],
)
def test_a_box_in_a_json_string_is_unescaped(text: str, content: str) -> None:
    assert last_boxes(text) == [content]


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "\\{", "\\}", "\\\\", "5", " and ", ", ", "$"]), max_size=25))
def test_boxes_are_balanced_in_order_and_apart(pieces: list[str]) -> None:
    text = "".join(pieces)
    boxes = balanced_boxes(text)
    assert all(text[box.start : box.end] == f"\\boxed{{{box.content}}}" for box in boxes)
    assert all(first.end <= second.start for first, second in pairwise(boxes))
    assert last_box(text) == (boxes[-1] if boxes else None)


@pytest.mark.parametrize(
    "unit",
    ["\\boxed{", "\\boxed{5}, ", "\\boxed{5", "\\boxed{{}", "{", "}", "\\boxed", "\\\\boxed{\\\\", "\\", "\\boxed{ "],
)
def test_time_grows_with_the_text(unit: str) -> None:
    prefix = "\\boxed"
    assert growth(lambda text: (last_boxes(prefix + text), first_simple_box(prefix + text)), unit) < 30
