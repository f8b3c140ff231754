"""The math verifier: tables of the RLSP notes, limits, references, no alarms."""

import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving_verifiers import TellsWhatIsLoaded

from reward_models import MathVerifier, Outcome, VerifierError, VerifierPool
from reward_models.answers.compare import same_answer
from reward_models.answers.symbolic import same_by_algebra

# The equality table of the RLSP notes: gold, answer, what the released trainer says, what is true.
EQUALITY = [
    ("50", "0.5", True, False),
    ("50", "5000", True, False),
    ("50", "50.004", True, False),
    ("100", "1", True, False),
    ("25", "25\\%", True, True),
    ("1/2", "0.5", True, True),
    ("x=5", "5", True, True),
    ("0", "0.0", True, True),
    ("0", "1e-9", False, False),
    ("1,000", "1000", True, True),
    ("C", "the answer is C", False, False),
]


@pytest.mark.parametrize(("gold", "answer", "released", "ours"), EQUALITY)
def test_equality_table(gold: str, answer: str, released: bool, ours: bool) -> None:
    verdict = MathVerifier().check(f"so \\boxed{{{answer}}}", gold)
    assert verdict.outcome is (Outcome.CORRECT if ours else Outcome.WRONG)
    assert verdict.extracted == answer


EXTRACTION = [
    (r"so \boxed{42}", "42", Outcome.CORRECT, Outcome.CORRECT),
    (r"\boxed{\frac{1}{2}}", "0.5", Outcome.CORRECT, Outcome.CORRECT),
    (r"\boxed{\frac{\sqrt{3}}{2}}", r"\frac{\sqrt3}2", Outcome.CORRECT, Outcome.NO_ANSWER),
    (r"try \boxed{7}. wait, \boxed{8}", "8", Outcome.CORRECT, Outcome.WRONG),
    (r"try \boxed{7}. wait, \boxed{8}", "7", Outcome.WRONG, Outcome.CORRECT),
    (r"\boxed 5 , \fbox{3}", "5", Outcome.NO_ANSWER, Outcome.NO_ANSWER),
    (r"\boxed{}", "5", Outcome.WRONG, Outcome.WRONG),
]


@pytest.mark.parametrize(("response", "gold", "last", "first"), EXTRACTION)
def test_extraction_table(response: str, gold: str, last: Outcome, first: Outcome) -> None:
    assert MathVerifier().check(response, gold).outcome is last
    assert MathVerifier(box="first").check(response, gold).outcome is first


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"2\sqrt3", r"2\sqrt{3}"),
        ("x^2-1", "(x-1)(x+1)"),
        (r"(-\infty, 0] \cup (\tfrac12, \tfrac32]", r"(-\infty,0]\cup(1/2,3/2]"),
        (r"\frac{\pi}{3}", r"\frac13\pi"),
        ("1,-2", "-2,1"),
        (r"\begin{pmatrix} 1 \\ 1/2 \end{pmatrix}", r"\begin{pmatrix}1\\0.5\end{pmatrix}"),
        (r"\sqrt{3}", r"3^{1/2}"),
        (r"\text{Tuesday}", "Tuesday"),
        (r"\text{C}", "C"),
        ("x=5", r"\text{x}=5"),
    ],
)
def test_equal_by_algebra_or_text(gold: str, answer: str) -> None:
    assert same_answer(gold, answer)[0]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2", r"2\sqrt{3}"),
        ("2", "(1 + √3) / 2"),
        ("-4", "-4, -5"),
        ("4,6,14,15", "4"),
        ("120000", "120,006"),
        ("72", "7200"),
        ("1112112_3", "1112122_3"),
        ("[-3,2]", "(-3,2)"),
        ("5x - 7y + 11z + 4 = 0", "x + y - z + 2 = 0"),
        ("6", "6√2"),
        ("1", "1 1/2"),
        ("(1,2)", "(2,1)"),
        (r"\text{Tuesday}", "Tuedsay"),
        (r"\text{VW}", "WV"),
        ("listen", "silent"),
        ("5", "I guess 5"),
        ("5", "5 or 6"),
    ],
)
def test_not_equal(gold: str, answer: str) -> None:
    assert not same_answer(gold, answer)[0]


def test_text_after_the_thinking_counts() -> None:
    response = r"<think>\boxed{5}</think> so it is \boxed{6}"
    assert MathVerifier().check(response, "6").outcome is Outcome.CORRECT
    assert MathVerifier().check(r"<think>\boxed{6}</think> no idea", "6").outcome is Outcome.NO_ANSWER
    assert MathVerifier().check(r"<think>so far \boxed{6}", "6").outcome is Outcome.NO_ANSWER
    assert MathVerifier(thinking_end=None).check(r"\boxed{6}</think> no idea", "6").outcome is Outcome.CORRECT


def test_extraction_policies_differ() -> None:
    responses = [r"\boxed{12}", "The answer is 12.", "we find 12"]
    outcomes = [
        [MathVerifier(extraction=policy).check(r, "12").outcome is Outcome.CORRECT for r in responses]
        for policy in ("boxed", "marked", "lenient")
    ]
    assert outcomes == [[True, False, False], [True, True, False], [True, True, True]]


def test_detail_names_both_rules() -> None:
    assert MathVerifier().check(r"\boxed{0.5}", "1/2").detail == "last box; compared as numbers"
    assert MathVerifier().check(r"\boxed{x+1}", "1+x").detail == "last box; compared by value"
    assert MathVerifier(extraction="marked").check("A: yes", "yes").detail == "answer line; equal as text"


@pytest.mark.parametrize(
    "answer", ["9^{9^{9^9}}", "(10^9)!", "2^{10000000}", "(" * 4000 + "1" + ")" * 4000, "a+" * 10**6]
)
def test_what_a_limit_refuses_is_wrong_at_once_unless_it_is_the_reference(answer: str) -> None:
    start = time.perf_counter()
    refused = MathVerifier().check(f"\\boxed{{{answer}}}", "16")
    assert refused.outcome is Outcome.WRONG
    assert "the answer was refused" in refused.detail
    assert MathVerifier().check(f"\\boxed{{{answer}}}", answer).outcome is Outcome.CORRECT
    assert "was refused" in MathVerifier().check("\\boxed{16+x}", answer).detail
    assert time.perf_counter() - start < 5


def test_a_long_answer_is_shown_short() -> None:
    extracted = MathVerifier().check(f"\\boxed{{{'a' * 10**5}}}", "16").extracted
    assert extracted == "a" * 500 + "…"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        ("$$", "it is empty"),
        ("\u200b", "it is empty"),
        ("4:30p..", "two full stops"),
        ("\\frac{1}{2", "braces do not balance"),
        ("1}{", "braces do not balance"),
        ("5\x00", "no text"),
        ("5\ud800", "no text"),
        ("5" + chr(0xFFFD), "no text"),
    ],
)
def test_a_reference_that_cannot_be_read_is_bad_whatever_the_answer(reference: str, reason: str) -> None:
    for response in ("", "\\boxed{5}", f"\\boxed{{{reference}}}"):
        verdict = MathVerifier().check(response, reference)
        assert verdict.outcome is Outcome.BAD_REFERENCE
        assert reason in verdict.detail


@pytest.mark.parametrize("reference", ["1,2,...", "[0,1)", r"\{1,2\}", "5\u200b", r"[0, 3\}", r"\text{odd}"])
def test_a_reference_that_looks_odd_is_read(reference: str) -> None:
    assert MathVerifier().check("\\boxed{77}", reference).outcome is Outcome.WRONG
    assert MathVerifier().check(f"\\boxed{{{reference}}}", reference).outcome is Outcome.CORRECT


def test_integers_only() -> None:
    verifier = MathVerifier(integers_only=True)
    for answer in ("80", "080", "80.", r"\text{80}", r"80^\circ", "n = 80", r"80 \text{ cm}", "+80"):
        assert verifier.check(f"\\boxed{{{answer}}}", "080").outcome is Outcome.CORRECT, answer
    for answer in ("81", "-80", "80.5", "160/2", "80, 81", "40+40", r"80\%", "eighty", "8 0", "80x", ""):
        assert verifier.check(f"\\boxed{{{answer}}}", "80").outcome is Outcome.WRONG, answer
    for reference in ("1/2", r"\frac{160}{2}", "80, 81", "cat"):
        verdict = verifier.check(r"\boxed{80}", reference)
        assert verdict.outcome is Outcome.BAD_REFERENCE
        assert "integers_only" in verdict.detail
    assert verifier.check(r"\boxed{80}", "80").detail == "last box; compared as integers"


@pytest.mark.parametrize(
    "reference",
    [
        "80",
        r"\frac{1}{2}",
        r"(-\infty, 0] \cup [1, 2)",
        r"\{1,2\}",
        "9^9^9",
        r"\text{odd}",
        "x<3",
        r"x \in \boxed{[0,1)}.",
    ],
)
@pytest.mark.parametrize("extraction", ["boxed", "marked", "lenient"])
def test_the_gold_response_is_correct(reference: str, extraction: str) -> None:
    verifier = MathVerifier(extraction=extraction)  # type: ignore[arg-type]
    response = verifier.gold_response(reference)
    assert response is not None
    assert verifier.check(response, reference).outcome is Outcome.CORRECT


def test_no_gold_response_for_a_bad_reference() -> None:
    assert MathVerifier().gold_response("4:30p..") is None
    assert MathVerifier(integers_only=True).gold_response("1/2") is None
    assert MathVerifier(box="first").gold_response(r"\frac{\sqrt{3}}{2}") is None


def test_unknown_options_are_refused() -> None:
    with pytest.raises(VerifierError, match="extraction is 'anywhere'; expected one of boxed, marked, lenient"):
        MathVerifier(extraction="anywhere")  # type: ignore[arg-type]
    with pytest.raises(VerifierError, match="box is 'middle'; expected one of last, first"):
        MathVerifier(box="middle")  # type: ignore[arg-type]


def test_options_travel() -> None:
    copy = pickle.loads(
        pickle.dumps(MathVerifier(extraction="lenient", thinking_end=None, box="first", integers_only=True))
    )
    assert (copy.extraction, copy.thinking_end, copy.box, copy.integers_only) == ("lenient", None, "first", True)


def test_no_alarm_is_set_and_threads_work() -> None:
    """math-verify's own limits use signals: they would fail in a thread and replace the program's handler."""
    calls: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: calls.append(number))
    results: list[bool] = []
    try:
        handler = signal.getsignal(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, 100)
        thread = threading.Thread(target=lambda: results.append(same_by_algebra("x^2-1", "(x-1)(x+1)")))
        thread.start()
        thread.join(timeout=30)
        assert same_by_algebra("x^2-1", "(x-1)(x+1)")
        assert signal.getsignal(signal.SIGALRM) is handler
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert results == [True]
    assert calls == []


def test_hostile_answers_are_judged_without_waiting() -> None:
    """None of them reaches a computation without bounds: no worker has to be killed."""
    hostile = [
        "(x+y+z+w)^{60}",
        "10^{10^{10}}",
        "((2^{999})^{999})^{999}",
        "9⁹⁹⁹⁹⁹⁹⁹",
        "((9!)!)!",
        r"\binom{10^7}{5\cdot 10^6}",
        r"\sum_{i=1}^{10^8} i",
        r"\int_0^1 x^x dx",
        r"\underbrace{9\cdots9}_{10^9}",
        r"\sqrt" * 100 + "2",
        r"\{" * 240,
        ",".join(["x"] * 240),
        r"\pm" * 100 + "1",
        "1" * 10**6,
        r"5\text{ and }" * 100,
        r"\text{cm}" * 60,
        "1^2 and" * 60,
        "a" * 400 + "=1",
        r"\$" * 200,
        "(A) " * 120,
        "sin " * 100,
        "10x!" * 100,
        "|" * 480,
        "__import__('os').system('exit')",
        r"\operatorname{eye}(10^9)",
        r"\Gamma(10^9)",
    ]
    with VerifierPool(MathVerifier(), workers=1, timeout_s=20.0) as pool:
        verdicts = pool.check_many(
            [f"\\boxed{{{answer}}}" for answer in hostile], ["(x+y+z+w)^{59}(x+y+z+w+1)"] * len(hostile)
        )
    assert [answer[:20] for answer, v in zip(hostile, verdicts, strict=True) if v.outcome is not Outcome.WRONG] == []


def test_the_first_answer_in_a_pool_does_not_pay_for_imports() -> None:
    with VerifierPool(TellsWhatIsLoaded(), workers=1) as pool:
        assert pool.check("math_verify", "x").extracted == "True"
    fresh = subprocess.run(
        [sys.executable, "-c", "import reward_models.math_answers, sys; sys.exit('math_verify' in sys.modules)"],
        timeout=60,
        check=False,
    )
    assert fresh.returncode == 0


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import reward_models, sys; heavy = {'torch', 'transformers', 'trl', 'sympy', 'math_verify', 'numpy'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="0123456789+-*/^(){}[],.=xyz \\$%_!", max_size=12))
def test_no_short_answer_makes_it_raise_and_each_equals_itself(answer: str) -> None:
    verdict = MathVerifier().check(f"\\boxed{{{answer}}}", "16")
    assert verdict.outcome in {Outcome.WRONG, Outcome.CORRECT, Outcome.NO_ANSWER}
    itself = MathVerifier().check(f"\\boxed{{{answer}}}", answer)
    assert itself.outcome in {Outcome.CORRECT, Outcome.NO_ANSWER, Outcome.BAD_REFERENCE}
