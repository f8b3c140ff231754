"""Where each policy finds the answer."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.answers.extraction import ExtractionPolicy, after_thinking, extract

# Response, then what boxed, marked and lenient read.
TABLE: list[tuple[str, str | None, str | None, str | None]] = [
    (r"so \boxed{42}. The answer is 7.", "42", "42", "42"),
    (r"try \boxed{7}, no, \boxed{8}", "8", "8", "8"),
    ('{"reasoning": "I had 5", "answer": "12"}', None, "12", "12"),
    ('{"answer": "12"} better: {"answer": "13"}', None, "13", "13"),
    ('{"final_answer": 12.5, "x": 1}', None, "12.5", "12.5"),
    (r'{"answer": "\\frac{1}{2}"}', None, r"\frac{1}{2}", r"\frac{1}{2}"),
    (r'{"answer": "\sqrt{2}"}', None, r"\sqrt{2}", r"\sqrt{2}"),
    ('{"answer": "12 cups"}', None, "12 cups", "12 cups"),
    ('{"answer": "two\nlines \\"quoted\\""}', None, 'two\nlines "quoted"', 'two\nlines "quoted"'),
    ("5 + 7 = 12\nA: 12", None, "12", "12"),
    ("work\nAnswer: 12\n", None, "12", "12"),
    ("work\n**Final Answer:** $\\frac12$", None, "\\frac12", "\\frac12"),
    ("The answer is 12. I hope it is correct.", None, "12", "12"),
    ("The final answer is $(1,2)$. I hope it is correct.", None, "(1,2)", "(1,2)"),
    ("the answer is: 3.5", None, "3.5", "3.5"),
    ("An answer is hard to find; I get 12", None, "hard to find; I get 12", "hard to find; I get 12"),
    ("We get 5 and then 12", None, None, "12"),
    ("So $x=5$ and we are done", None, None, "x=5"),
    ("So $x=5$, which leaves 7", None, None, "7"),
    ("hence \\[ x = \\frac{1}{2} \\]", None, None, "x = \\frac{1}{2}"),
    ("10\\sqrt3 + \\sqrt{4}", None, None, "10\\sqrt3 + \\sqrt{4}"),
    ("7,425,000", None, None, "7,425,000"),
    ("no idea", None, None, None),
    ("", None, None, None),
]


@pytest.mark.parametrize(("response", "boxed", "marked", "lenient"), TABLE)
def test_table(response: str, boxed: str | None, marked: str | None, lenient: str | None) -> None:
    policies: list[ExtractionPolicy] = ["boxed", "marked", "lenient"]
    found = [extract(response, policy) for policy in policies]
    assert [None if f is None else f.text for f in found] == [boxed, marked, lenient]


def test_the_rule_is_named() -> None:
    responses = [r"\boxed{1}", '{"answer": "1"}', "A: 1", "the answer is 1", "1", "$1$ is it", "I say 1"]
    rules = [found.rule for found in (extract(r, "lenient") for r in responses) if found]
    assert rules == [
        "last box",
        "JSON field",
        "answer line",
        "answer sentence",
        "whole response",
        "last formula",
        "last number",
    ]


def test_the_first_box_is_that_of_the_released_trainer() -> None:
    text = r"try \boxed{\frac{\sqrt{3}}{2}}, \boxed{7}, no, \boxed{8}"
    first = extract(text, "boxed", "first")
    assert first is not None
    assert (first.text, first.rule) == ("7", "first box")


@pytest.mark.parametrize(
    ("response", "rest"),
    [
        ("no thinking", "no thinking"),
        ("<think>try 5</think> 6", " 6"),
        ("try 5</think> 6", " 6"),
        ("a</think>b</think>c", "c"),
        ("<think>never ends \\boxed{5}", ""),
    ],
)
def test_after_thinking(response: str, rest: str) -> None:
    assert after_thinking(response, "</think>") == rest


def test_the_delimiter_is_a_choice() -> None:
    assert after_thinking("a</think>b", None) == "a</think>b"
    assert after_thinking("a|done|b", "|done|") == "b"
    assert after_thinking("a b", "|done|") == "a b"


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    boxed, marked, lenient = extract(text, "boxed"), extract(text, "marked"), extract(text, "lenient")
    assert boxed is None or boxed == marked
    assert marked is None or marked == lenient


@pytest.mark.parametrize(
    "text",
    ['"answer": "' * 50_000, "answer is " * 50_000, "$" * 500_001, "\\(" * 200_000, "1," * 300_000, "A: " * 100_000],
)
def test_half_a_megabyte_of_openings_takes_no_long_time(text: str) -> None:
    start = time.perf_counter()
    extract(text, "lenient")
    assert time.perf_counter() - start < 20
