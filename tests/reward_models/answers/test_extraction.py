"""Where each policy finds the answer."""

import pytest
from growth import growth

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
    ("An answer is hard to find; I get 12", None, None, "12"),
    ("We get 5 and then 12", None, None, "12"),
    ("So $x=5$ and we are done", None, None, "x=5"),
    ("So $x=5$, which leaves 7", None, None, "7"),
    ("hence \\[ x = \\frac{1}{2} \\]", None, None, "x = \\frac{1}{2}"),
    ("10\\sqrt3 + \\sqrt{4}", None, None, "10\\sqrt3 + \\sqrt{4}"),
    ("7,425,000", None, None, "7,425,000"),
    ("I guess 8", None, None, "8"),
    ("no idea", None, None, "no idea"),
    (r"so \boxed{8", None, None, "8"),
    (r"so \fbox{3}", None, None, r"\fbox{3}"),
    (r"\boxed{}", "", "", ""),
    (r"\boxed{5} and \boxed{6}", "5, 6", "5, 6", "5, 6"),
    (r"\boxed{5}, \boxed{5}", "5", "5", "5"),
    # Kinds have an order, whatever comes last.
    ('A: 1\n{"answer": 2}\nThe answer is 3. \\boxed{4} then 5', "4", "4", "4"),
    ('A: 1\n{"answer": 2}\nThe answer is 3. then 5', None, "2", "2"),
    ("A: 1\nThe answer is 3. then 5", None, "3", "3"),
    ("The answer is 3.\nA: 1\nthen 5", None, "1", "1"),
    ("no thinking, 4, then 5", None, None, "5"),
    # Only a JSON field behind the box overrides it; a box inside or behind the field does not lose.
    (r'{"reasoning": "we get \boxed{6} wait", "answer": "7"}', "6", "7", "7"),
    (r'\boxed{6}, and as JSON: {"answer": "7"}', "6", "7", "7"),
    (r'{"reasoning": "we get \boxed{6}", "answer": null}', "6", "6", "6"),
    (r'{"answer": "it is \boxed{7}"}', "7", "7", "7"),
    (r'{"answer": "7"} or better \boxed{8}', "8", "8", "8"),
    # Words around a box do not unsay it
    (r"The answer is not \boxed{5}", "5", "5", "5"),
    # What is denied, null or cut off is not guessed instead
    ("The answer is not 5.", None, None, None),
    ("The answer isn't 5.", None, None, None),
    ("The answer is not 5. So 7 it is", None, None, "7"),
    ('{"reasoning": "3+4=7", "answer": null}', None, None, None),
    ('{"reasoning": "3+4=7", "answer": "7', None, None, None),
    ('{"reasoning": "the answer is 7", "answer": null}', None, None, None),
    ("I get 5 <answer>5", None, None, None),
    ("Maybe the answer is 5", None, None, "5"),
    ("", None, None, None),
]


@pytest.mark.parametrize(("response", "boxed", "marked", "lenient"), TABLE)
def test_table(response: str, boxed: str | None, marked: str | None, lenient: str | None) -> None:
    policies: list[ExtractionPolicy] = ["boxed", "marked", "lenient"]
    found = [extract(response, policy) for policy in policies]
    assert [None if f is None else f.text for f in found] == [boxed, marked, lenient]


def test_the_rule_is_named() -> None:
    responses = [
        (r"\boxed{1}", "last box"),
        (r"\boxed{1}, \boxed{2}", "last boxes"),
        ('{"answer": "1"}', "JSON field"),
        ("<answer>1</answer>", "answer tag"),
        ("A: 1", "answer line"),
        ("the answer is 1", "answer sentence"),
        ("1", "whole response"),
        ("$1$ is it", "last formula"),
        ("so I say 1 here", "last number"),
    ]
    found = [(response, extract(response, "lenient")) for response, _ in responses]
    assert [(response, None if f is None else f.rule) for response, f in found] == responses


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
        ("<think>a</think>\\boxed{5}<think>or \\boxed{6}", ""),
        ("</think>", ""),
    ],
)
def test_after_thinking(response: str, rest: str) -> None:
    assert after_thinking(response, "</think>") == rest


def test_the_delimiter_is_a_choice() -> None:
    assert after_thinking("a</think>b", None) == "a</think>b"
    assert after_thinking("a|done|b", "|done|") == "b"
    assert after_thinking("a b", "|done|") == "a b"
    assert after_thinking("[THINK]a[/THINK]b", "[/THINK]") == "b"
    assert after_thinking("[THINK]a b", "[/THINK]") == ""


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "\\boxed{",
        "$",
        '"',
        "7",
        "1,",
        "1 ",
        "$x$, ",
        '"answer": "',
        "answer is ",
        "Answer: ",
        "A: 5\n",
        "\\(",
        "```a\n",
    ],
)
def test_time_grows_with_the_text(unit: str) -> None:
    assert growth(lambda text: extract(text, "lenient"), unit) < 30
