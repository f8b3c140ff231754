"""What counts as the last expression."""

import pytest
from growth import growth

from reward_models.answers.lenient import last_expression


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
        # What changes a number is read with it, so that nobody is paid for the number alone
        ("it is 12 million.", "12 million"),
        ("it is $12 million.", "$12 million"),
        ("so it is negative 12.", "negative 12"),
        ("so the maximum is sqrt 12", "sqrt 12"),
        ("so it is log_2 8", "log_2 8"),
        ("half of 12", "half of 12"),
        ("so it is 3/4 of the 12", "3/4 of the 12"),
        ("it is 12 and a half.", "12 and a half"),
        ("it is 12 and a dog", "12"),
        ("the value is 12 x.", "12 x"),
        ("She pays 12 a day", "12"),
        ("it is at 12 p.m. sharp", "12"),
        ("it is the 12th", "12th"),
        ("it is at most 12.", "at most 12"),
        ("It is not 12.", "not 12"),
        ("the values are 3 and 12.", "3 and 12"),
        ("the values are $3$ and 12.", "$3$ and 12"),
        ("the values are 3, 12.", "3, 12"),
        ("the value is 1, 3, or 12.", "1, 3, or 12"),
        ("the ratio is 5 to 12.", "5 to 12"),
        ("it is 10 plus 12 here", "10 plus 12"),
        ("She has $12 and 50 cents.", "$12 and 50"),
        ("She gave 3 pears and 12 apples", "12"),
        # Remarks in brackets
        ("thus n=12. (See Section 3)", "12"),
        ("it is f(12) there", "f(12)"),
        ("it is 2 (that is sqrt 4)", "2"),
        ("no number", None),
        ("", None),
    ],
)
def test_last_expression(text: str, answer: str | None) -> None:
    found = last_expression(text)
    assert (None if found is None else found[0]) == answer


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1,",
        "1 ",
        "1+",
        "(1",
        "\\frac{1}",
        "x ",
        "=",
        "a",
        "1:",
        "{",
        "\\a{",
        "$x$",
        "1\n",
        "(aaaa",
        "not ",
        "3 and ",
        "1 a",
    ],
)
def test_time_grows_with_the_text(unit: str) -> None:
    assert growth(last_expression, unit) < 30
