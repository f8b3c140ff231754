"""Random responses: nothing raises, planted answers are found, nothing is found where nothing is stated."""

import json

import pytest
from growth import growth
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.answers.extraction import Extracted, ExtractionPolicy, after_thinking, extract

# Every character there is, lone surrogates, NUL and writing from right to left among them.
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=[]))
# What the readers look for, in any order: random characters seldom form two brackets that belong together.
# fmt: off
PIECES = st.sampled_from([
    "\\boxed{", "\\\\boxed{", "\\boxed", "\\fbox{", "{", "}", "\\{", "\\}", "\\", "\\\\", "$", "$$", "\\(", "\\)",
    "\\[", "\\]", "\\begin{align}", "\\end{align}", "&", '{"answer": ', '"final_answer":', '"', '\\"', "[", "]", "(",
    ")", "null", "\\u00", "\\frac", "\\text{and}", " and ", " or ", ", ", ";", "=", "a = ", "The answer is ",
    "answer", "Answer:", "**", "__", "A:", "\nA: ", "\nB: ", "\n#### ", "#", " not ", "?", ". ", "because",
    "<answer>", "</answer>", "```python\n", "```\n", "```", "<think>", "</think>", "5", "-12", "1,234", "1/2", ".5",
    "%", "√", "12:30", "x", "n", "\n", " ", "\t", "\0", "\ud800", "\u202e", "\ufeff", "٣", "½", "cups", "\r\n", "：",
    "’", "'answer': '", "'", "isn't",
])
# fmt: on
MARKUP = st.lists(PIECES, max_size=60).map("".join)
POLICIES: list[ExtractionPolicy] = ["boxed", "marked", "lenient"]

# Prose that states no answer: words, numbers in passing, formulas, code.
SENTENCES = st.sampled_from(
    [
        "We start with $x = 3$ and add 4.",
        "Each of the 12 boxes costs $5.",
        "So \\[ a + b = 7 \\] must hold, and that is \\frac{1}{2} of it.",
        "- First, 3 apples",
        "1. We compute 17 * 3 = 51.",
        "## Step 2",
        "**Note** that this is \\fbox{9}, or \\boxed 8.",
        "Is it {1, 2}? I guess 8.",
        '{"reasoning": "so it is 5", "x": 5}',
        "The result is 6, and I hope it helps!",
        "```python\nanswer = 5\nprint(answer)\n```",
        "¿Qué? Тогда 5 яблок, also מספר 7.",
    ]
)
PROSE = st.lists(SENTENCES, max_size=6).map("\n".join)
# fmt: off
ANSWERS = st.sampled_from([
    "5", "-12", "1,234", "3.14", "\\frac{1}{2}", "\\{1, 2\\}", "(1, 2)", "[0, 3)", "x^2 + 1", "\\sqrt[3]{2}", "C",
    "1, 2", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\text{Tuesday}", "12\\%", "30^\\circ", "x = 5",
    "2^{10}",
])
# fmt: on
# A sentence, a line and JSON around an answer, and which rule must find it.
STATEMENTS = [
    ("The answer is ${}$.", "answer sentence"),
    ("Therefore, the final answer to the problem is \\({}\\), since nothing else fits.", "answer sentence"),
    ("Answer: ${}$", "answer line"),
    ("**Final Answer:** \\[{}\\]", "answer line"),
    ("### Final Answer\n\n${}$", "answer line"),
    ("A: ${}$", "answer line"),
    ("<answer>{}</answer>", "answer tag"),
]


def none_raises(text: str) -> None:
    boxed, marked, lenient = (extract(text, policy) for policy in POLICIES)
    assert boxed is None or boxed == marked or (marked is not None and marked.rule == "JSON field")
    assert marked is None or marked == lenient
    first = extract(text, "boxed", "first")
    assert first is None or first.rule == "first box"
    for delimiter in ("</think>", "[/THINK]", "}", None):
        assert after_thinking(text, delimiter) in text


def planted_is_found(before: str, answer: str, after: str) -> None:
    boxed = Extracted(answer, "last box")
    assert extract(f"{before}\nso $\\boxed{{{answer}}}$.\n{after}", "boxed") == boxed
    field = json.dumps({"reasoning": before, "answer": answer}, indent=4)
    assert extract(f"{before}\n```json\n{field}\n```\n{after}", "marked") == Extracted(answer, "JSON field")
    for statement, rule in STATEMENTS:
        text = f"{before}\n{statement.replace('{}', answer)}\n{after}"
        assert extract(text, "marked") == Extracted(answer, rule), text


def nothing_is_found(prose: str) -> None:
    assert extract(prose, "boxed") is None
    assert extract(prose, "marked") is None


@given(ANY_TEXT | MARKUP)
@settings(max_examples=300)
def test_no_text_makes_it_raise(text: str) -> None:
    none_raises(text)


@given(PROSE, ANSWERS, PROSE)
@settings(max_examples=60)
def test_a_planted_answer_is_found(before: str, answer: str, after: str) -> None:
    planted_is_found(before, answer, after)


@given(PROSE)
@settings(max_examples=60)
def test_prose_states_nothing(prose: str) -> None:
    nothing_is_found(prose)


@pytest.mark.slow
@given(ANY_TEXT | MARKUP)
@settings(max_examples=20_000)
def test_no_text_makes_it_raise_at_length(text: str) -> None:
    none_raises(text)


@pytest.mark.slow
@given(PROSE, ANSWERS, PROSE)
@settings(max_examples=2_000)
def test_a_planted_answer_is_found_at_length(before: str, answer: str, after: str) -> None:
    planted_is_found(before, answer, after)


@pytest.mark.slow
@given(st.lists(PIECES, min_size=1, max_size=4).map("".join))
@settings(max_examples=300)
def test_time_grows_with_any_repeated_markup(unit: str) -> None:
    assert growth(lambda text: extract(text, "lenient"), unit) < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["so 5 and $x$ make \\(7\\).\n", "{", "\\boxed{", "\\boxed{1}, ", "answer is not 5. ", "7"]
)
def test_ten_megabytes_come_back(unit: str) -> None:
    none_raises(unit * (10_000_000 // len(unit)))
