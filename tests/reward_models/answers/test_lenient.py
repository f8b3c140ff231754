"""What counts as the last expression."""

import pytest
from growth import growth

from reward_models.answers.lenient import last_expression, whole_response


@pytest.mark.parametrize(
    ("text", "is_answer"),
    [
        ("10\\sqrt3 + \\sqrt{4}", True),
        ("7,425,000", True),
        ("1, 2 and 3", True),
        ("12 cups", True),
        ("5 million people", True),
        ("$9 500", True),
        ("08:34 \\text{P.M.}", True),
        ("\\begin{pmatrix} 1 \\\\\n 0.5 \\end{pmatrix}", True),
        ("\\text{Evelyn}", True),
        ("Tuesday", True),
        ("We get 5 and then 12", False),
        ("12 cups are what she needs for it", False),
        ("x = 5\ny = 6", False),
        ("$x$", False),
        ("1+" * 150 + "1", False),
        ("a sentence that goes on for quite a while and says nothing at all", False),
        ("", False),
    ],
)
def test_whole_response(text: str, is_answer: bool) -> None:
    assert whole_response(text) == (text if is_answer else None)


def test_a_whole_response_has_no_emphasis_and_no_end_of_turn() -> None:
    assert whole_response("**72**\n") == "72"
    assert whole_response("`72`<|im_end|></s>\n") == "72"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("We get 5 and then 12", "12"),
        ("So $x=5$ and we are done", "x=5"),
        ("So $x=5$, which leaves 7", "7"),
        ("hence \\[ x = \\frac{1}{2} \\]", "x = \\frac{1}{2}"),
        ("The roots are $1$ and $2$.", "1, 2"),
        ("we get $12$, where $n$ is an integer", "12"),
        ("where $n$ is 5 and $n$ an integer", "5"),
        ("the triangle $ABC$", "ABC"),
        ("so 9 + 1 = 10 miles.", "10"),
        ("so x = -5 there", "-5"),
        ("Then x ≥ 5 here", "x ≥ 5"),
        ("The area is 2√3 cm.", "2√3"),
        ("the area is 12 cm^2.", "12"),
        ("so it is (1, 2).", "(1, 2)"),
        ("The increase is 50%.", "50%"),
        ("He pays $16,000 in total.", "$16,000"),
        ("It is -$40 less", "-$40"),
        ("le prix est de 2,74 en tout", "2,74"),
        ("It is 1 1/2 cups.", "1 1/2"),
        ("the ratio 11:21 is it", "11:21"),
        ("a 3-day trip", "3"),
        ("we use 2^6*3^5 there", "2^6*3^5"),
        ("that is = \\frac{3}{4} of it", "\\frac{3}{4}"),
        ("```output\n20\n```\n7 guests did not get any.", "7"),
        ("```python\nprint(5)\n```\n```output\n3800\n```", "3800"),
        ("the code AZYUK2A and x1 and m^2", None),
        ("no number", None),
        ("", None),
    ],
)
def test_last_expression(text: str, answer: str | None) -> None:
    found = last_expression(text)
    assert (None if found is None else found[0]) == answer


@pytest.mark.parametrize(
    "unit", ["1", "1,", "1 ", "1+", "(1", "\\frac{1}", "x ", "=", "a", "1:", "{", "\\a{", "$x$", "1\n"]
)
def test_time_grows_with_the_text(unit: str) -> None:
    assert growth(last_expression, unit) < 30
