"""Answers that look alike and are not equal."""

import pytest

from reward_models.answers.compare import same_answer

DIFFERENT = r"""
x=1, y=2 || 2, 1
A = 5, B = 6 || 6, 5
a=1,b=2,c=3 || 3,2,1
x+2y=2^{2024} || x+3y=2^{2024}
3x+4y=10^{60} || 3x+5y=10^{60}
2x+y=10^{45} || 2x-y=10^{45}
\sqrt{2}x+2y=2^{2024} || \sqrt{2}x+3y=2^{2024}
xy<10^{50} || xy^2<10^{50}
a-b || A-B
aB || Ab
AB || ab
X-y || x-Y
\{1\},\{2\} || \{1,2\}
\{1\},\{2\} || 1,2
(\{1\},2) || (1,2)
1 || 1+e^{-1000}
1 || 1+10^{-200}
0 || 10^{-200}
0 || \sqrt{10^{20}+1}-10^{10}
"""
EQUAL = r"""
x=1, y=2 || 1, 2
x=1, y=2 || y=2, x=1
x=1, y=2 || (1,2)
x=1, x=2 || 2, 1
x+2y=2^{2024} || 2x+4y=2^{2025}
\sqrt{2}x+2y=2^{2024} || x+\sqrt{2}y=\frac{2^{2024}}{\sqrt{2}}
Yes || yes
\{1\} || 1
\{8, 8\} || 8
x=\{1\} || x=1
0 || \sin\pi
0 || \cos\frac{\pi}{2}
0 || e^{i\pi}+1
1 || 1+\sin\pi
5 || \sin\pi+5
x || x+\sin(2\pi)
"""


def pairs(table: str) -> list[list[str]]:
    return [line.split(" || ") for line in table.strip().splitlines()]


@pytest.mark.parametrize(("first", "second"), pairs(DIFFERENT))
def test_different(first: str, second: str) -> None:
    assert not same_answer(first, second).equal
    assert not same_answer(second, first).equal


@pytest.mark.parametrize(("first", "second"), pairs(EQUAL))
def test_equal(first: str, second: str) -> None:
    assert same_answer(first, second).equal
    assert same_answer(second, first).equal


def test_no_piece_of_a_union_is_forgotten() -> None:
    many = ",".join(map(str, range(70)))
    assert not same_answer(rf"\{{{many}\}}\cup\{{100\}}", rf"\{{{many}\}}\cup\{{200\}}").equal
    assert not same_answer(rf"\{{{many}\}}\cup\{{100\}}", rf"\{{{many},200\}}").equal
