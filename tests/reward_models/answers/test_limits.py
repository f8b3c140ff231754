"""What algebra never sees, and what it must see."""

import pytest

from reward_models.answers.limits import MAX_ANSWER_CHARS, MAX_DIGITS_IN_A_ROW, MAX_NESTING, refusal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1" * 600, "characters"),
        ("(" * 20 + "1" + ")" * 20, "nested"),
        ("9" * 101, "digits"),
        (r"\dfrac{5^{(5^{(5^{(5^5)})}-4)}-5}{16}", "tower"),
        ("9^{9^{9^9}}", "tower"),
        ("9**9**9**9", "tower"),
        ("e^{x^{y^z}}", "tower"),
        ("9^{9^9}", "power of numbers"),
        ("x^{9^9}", "power of numbers"),
        (r"2^\sqrt{9^9}", "power of numbers"),
        ("9^{(9)^9}", "power of numbers"),
        ("9^9^9", "power of numbers"),
        (r"2^{10\cdot 10^9}", "power of numbers"),
        ("2^{10000000}", "exponent"),
        ("2^(-10000000)", "exponent"),
        ("2 ** 100000", "exponent"),
        ("1000!", "factorial"),
        ("(10^9)!", "factorial"),
        ("3!!", "factorial"),
        (r"\binom{10000000}{2}", "binomial"),
        (r"\binom{10^7}{2}", "binomial"),
        (r"\dbinom{(9!)}{2}", "binomial"),
        (r"\sum_{i=1}^{n} i", r"\sum"),
        (r"\underbrace{9\cdots 9}_{n}", r"\underbrace"),
        ("(2^{9999})^{9999}", "powers of powers"),
        ("((2^{999})^{99})^{9}", "powers of powers"),
        (r"\int_0^1 x dx", r"\int"),
    ],
)
def test_refused_with_the_reason(text: str, reason: str) -> None:
    assert reason in (refusal(text) or "nothing")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "2^{2024}",
        "2^{0002024}",
        "x^2y^3z^4",
        "x^2 + y^2",
        "e^{-x^2/2}",
        "2^{n^2}",
        r"10^{\frac{-5+\sqrt{13}}{6}}",
        "10!",
        "100!",
        "(n-1)!",
        "(((x^2)^3)^4)^5",
        "(x+1)^{100}(x-1)^{100}(x+2)^{100}",
        "n!",
        r"\binom{10}{3}",
        r"\binom{n}{2}",
        r"\binom{n+1}{k}",
        "1" * MAX_DIGITS_IN_A_ROW,
        "(" * MAX_NESTING + "x" + ")" * MAX_NESTING,
        "x+" * (MAX_ANSWER_CHARS // 2),
        r"\infty",
        r"\begin{pmatrix} \frac{1}{2} \\ \sqrt{\frac{3}{4}} \end{pmatrix}",
        r"\text{interval}",
        "5 \\neq 6",
    ],
)
def test_let_through(text: str) -> None:
    assert refusal(text) is None
