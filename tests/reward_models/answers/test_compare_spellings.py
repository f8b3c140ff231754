"""One answer spelled in several ways."""

import pytest

from reward_models.answers.compare import same_answer
from reward_models.answers.plain_answers import read_integer

EQUAL = r"""
1,000, 2,000 || 1000, 2000
(1,000, 2,000) || (1000,2000)
8 || f(2)=8
8 || P(3) = 8
8 || = 8
7 || P(1) + P(2) = 7
16 || 2^{2^2}
256 || 2^{2^3}
2^{100} || 2^{10^2}
{1 \over 2} || 1/2
{10 \choose 3} || 120
\bf 371 || 371
\underline{371} || 371
0.\dot{3} || 1/3
8^{o} || 8^\circ
\frac{5}{6} || ⅚
\frac{3}{8} || ⅜
\sqrt[3]{5} || ∛5
\infty || infinity
\mathbb{R}\setminus\{1\} || \mathbb{R}-\{1\}
(-\infty,-2)\cup(5,\infty) || (-\infty,-2)U(5,\infty)
\begin{aligned}x&=1\\y&=2\end{aligned} || x=1, y=2
"""
DIFFERENT = r"""
(1,000, 2,000) || (1,0,2,0)
8 || x(2)=8
f(2)=8 || f(3)=8
16 || 2^{2^3}
x^{o} || x^\circ
"""


def pairs(table: str) -> list[list[str]]:
    return [line.split(" || ") for line in table.strip().splitlines()]


@pytest.mark.parametrize(("first", "second"), pairs(EQUAL))
def test_equal(first: str, second: str) -> None:
    assert same_answer(first, second).equal
    assert same_answer(second, first).equal


@pytest.mark.parametrize(("first", "second"), pairs(DIFFERENT))
def test_different(first: str, second: str) -> None:
    assert not same_answer(first, second).equal
    assert not same_answer(second, first).equal


INTEGERS_TEXT = r"\textbf{(55) }~\text{(55)}~(55)~{55}~55.00~50+5=55~m+n=55~AB=55~55_{10}~\textbf{(B) } 55~055~n = 55"


@pytest.mark.parametrize("text", INTEGERS_TEXT.split("~"))
def test_an_integer_in_many_forms(text: str) -> None:
    assert read_integer(text) == "55"


@pytest.mark.parametrize("text", ["55_8", "5=55", "55.5", "x+1=55", "5,5", "5 5", "f(55)", "9^9^9=55"])
def test_no_integer(text: str) -> None:
    assert read_integer(text) is None
