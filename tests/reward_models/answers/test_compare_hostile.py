"""Answers made to exhaust the stack, the memory or the clock: each is judged, and none is let near the algebra."""

import pytest

from reward_models import MathVerifier, Outcome, VerifierPool
from reward_models.answers.compare import same_answer
from reward_models.answers.symbolic import readable_by_algebra

HOSTILE = [
    "5" + "%" * 400,
    "x" + "%" * 400,
    "x" + "^2%" * 150,
    r"\frac1" * 81,
    r"\sqrt" * 90 + "2",
    "1\\frac{" * 12 + "1" + "}{2}" * 12,
    "2^{9999*9999*9999} 1 1",
    "2^{999!} 1 1",
    "3^{x}2^{99*99999999}1 1",
    "(999!)^{9999} 1 1",
    "(a+b+c+d)^{99}(a-b-c-d)^{99} 1 1",
    r"\begin{pmatrix}x&1\\1&y\end{pmatrix}^{999}",
    r"\binom{x+1}{999} 1 1",
    r"\sqrt{10^{9999}+1}",
    r"\sqrt{10^{9999}}",
    r"\sqrt[7]{10^{9999}}",
    "+".join(["(x+1)^{9999}"] * 30),
]


def test_all_are_judged_in_time() -> None:
    """The time limit is what a loaded machine needs for far more than this: reaching it means without bound."""
    with VerifierPool(MathVerifier(), workers=1, timeout_s=60.0) as pool:
        for reference in ("3", "0", "(x+1)^{9999}"):
            verdicts = pool.check_many([f"\\boxed{{{answer}}}" for answer in HOSTILE], [reference] * len(HOSTILE))
            judged = {answer[:30]: verdict.outcome for answer, verdict in zip(HOSTILE, verdicts, strict=True)}
            assert set(judged.values()) == {Outcome.WRONG}, judged


@pytest.mark.parametrize("answer", HOSTILE[:6])
@pytest.mark.parametrize("frames", [0, 600, 850])
def test_depth_is_refused_wherever_the_caller_stands(answer: str, frames: int) -> None:
    def nested(left: int) -> bool:
        return nested(left - 1) if left else same_answer("3", answer).equal

    assert nested(frames) is False


@pytest.mark.parametrize(
    "text",
    [
        "2^{9999}",
        "2^{99!}",
        "2^{9*9}",
        "(x+1)^{2}",
        r"\begin{pmatrix}1\end{pmatrix}^{9}",
        "2^{3}^{4}",
        "5!",
        "1 1",
        "x 2 3",
        r"\exp(x)",
        r"\binom{5}{2}",
        "(a+b)(c+d)(e+f)(g+h)(i+j)",
        r"\sqrt{2+\sqrt{3+\sqrt{5}}}",
        "x" * 61,
    ],
)
def test_algebra_never_sees_what_can_grow(text: str) -> None:
    assert not readable_by_algebra(text)


@pytest.mark.parametrize("text", ["x^2y", r"\alpha^{12}+3^{-2}", r"2\begin{pmatrix}1&2\\3&4\end{pmatrix}", "y=2x+1"])
def test_algebra_may_see_the_rest(text: str) -> None:
    assert readable_by_algebra(text)
