r"""Answers that are written to hang, crash or mislead a grader, and what must come out instead.

Two corpora. `POISONS` are answers in boxes for a verifier that reads mathematics with limits, MathVerifier above all;
`outcomes` are those that are right, where more than one is a matter of taste. `RECKLESS` are answers that really do
harm to a verifier that evaluates what it reads; they prove the pool, not the verifier, and must never be evaluated
outside of one. `MARKER` in a response stands for seconds of sleep, by which a test finds a process left behind.

This file imports nothing of the project: benchmarks and other tests may load it by its path.
"""

from typing import NamedTuple

WRONG, RIGHT, NONE, HARD = ("wrong",), ("correct",), ("no_answer",), ("wrong", "timeout")


class Poison(NamedTuple):
    """One hostile answer: what it is, the response, the reference, and the outcomes that are acceptable."""

    name: str
    response: str
    reference: str
    outcomes: tuple[str, ...]


def _boxed(answer: str) -> str:
    return f"So the answer is $\\boxed{{{answer}}}$."


def _nested(opening: str, inner: str, closing: str, depth: int) -> str:
    return opening * depth + inner + closing * depth


_TOWER = "5^{(5^{(5^{(5^5)})}-4)}"
_EXPLOSIVE = {  # small to write, impossible to compute
    "tower of latex powers": "5^{5^{5^{5^5}}}",
    "tower of python powers": "9**9**9**9",
    "tower in a fraction": rf"\dfrac{{{_TOWER}-5}}{{16}}",
    "tower of negative powers": "2^{-9^{9^{9}}}",
    "power of ten of ten of ten": "10^{10^{10}}",
    "tower of pi": r"\pi^{\pi^{\pi^{\pi^{\pi}}}}",
    "sine of a tower": r"\sin(10^{10^{10}})",
    "factorial of a hundred million": "100000000!",
    "factorial of a power": "(10^{9})!",
    "factorial of a factorial": "((((9!)!)!)!)!",
    "binomial of a billion": r"\binom{1000000000}{500000000}",
    "sum of a trillion terms": r"\sum_{n=1}^{10^{12}} \frac{1}{n}",
    "product of a billion terms": r"\prod_{n=1}^{10^{9}} n",
    "billionth root": r"\sqrt[1000000000]{2^{1000000001}}",
    "decimal exponent": "1e999999999",
    "negative decimal exponent": "1e-999999999",
    "more digits than print": "10^{5000}",
    "numeral in base a billion": "1234_{999999999}",
    "repeated percent": "5" + "%" * 50_000,
}
_CODE = {  # what an evaluator would run
    "import and exit": "__import__('os')._exit(1)",
    "import and delete": "__import__('shutil').rmtree('/')",
    "open a file": "open('/etc/passwd').read()",
    "subclasses": "().__class__.__bases__[0].__subclasses__()",
    "eval in eval": "eval(\"__import__('time').sleep(600)\")",
    "endless comprehension": "[x for x in iter(int, 1)]",
    "lambda": "(lambda f: f(f))(lambda f: f(f))",
    "format string": "{0.__class__.__mro__}",
    "latex input": r"\input{/etc/passwd}",
    "latex definition": r"\def\x{\x\x}\x",
}
_LONG = {  # a megabyte, or a depth, that a parser or a regular expression may choke on
    "a million digits": "9" * 1_000_000,
    "a million letters": "x" * 1_000_000,
    "a million spaces": "7" + " " * 1_000_000 + "8",
    "a million commas": "," * 1_000_000,
    "half a million minus signs": "-" * 500_000 + "7",
    "hundred thousand equals": "7=" * 100_000 + "7=8",
    "hundred thousand dollars": "$" * 100_000,
    "hundred thousand plus ones": "1+" * 100_000 + "1",
    "thousands groups": "1" + ",000" * 50_000,
    "set of hundred thousand": r"\{" + ",".join(map(str, range(100_000))) + r"\}",
    "matrix of ten thousand rows": r"\begin{pmatrix}" + r"1 & 2 \\" * 10_000 + r"\end{pmatrix}",
    "nested brackets": _nested("(", "7", ")", 50_000),
    "nested braces": _nested("{", "8", "}", 50_000),
    "nested fractions": _nested(r"\frac{1}{1+", "1", "}", 5_000),
    "nested roots": _nested(r"\sqrt{", "8", "}", 5_000),
    "nested powers": _nested("2^{", "2", "}", 2_000),
    "nested text": _nested(r"\text{", "8", "}", 5_000),
    "nested absolute values": _nested("|", "-8", "|", 5_000),
    "catastrophic for a regex": "a" * 40 + "!",
    "commands without arguments": r"\frac" * 50_000,
}
_UNPRINTABLE = {
    "null": "\x00",
    "lone surrogate": "\ud800",
    "escape sequence": "\x1b[2J7\x1b[1A",
    "right to left override": "\u202e8\u202c",
    "object replacement": "\ufffc",
    "combining marks": "8" + "\u0301" * 10_000,
    "superscript digits": "8" + "²" * 1_000,
    "private use": "\ue000",
}
_SLOW_ALGEBRA = {  # short and flat, and more than a simplifier digests
    "power of a sum": "(a+b+c+d)^{500}",
    "trigonometric sum": "+".join(rf"\sin({n}x)\cos({n + 1}x)" for n in range(1, 9)),
    "radicals": "+".join(rf"\sqrt{{{n}+\sqrt{{{n + 1}}}}}" for n in range(2, 14)),
    "rational functions": "+".join(rf"\frac{{1}}{{x^{n}+{n}}}" for n in range(1, 12)),
}
_SHAPES = (
    Poison("empty", "", "7", NONE),
    Poison("white space", " \n\t" * 1000, "7", NONE),
    Poison("empty box", _boxed(""), "7", ("wrong", "no_answer")),
    Poison("box that is never closed", r"\boxed{7" + "{" * 100_000, "7", NONE),
    Poison("hundred thousand opened boxes", r"\boxed{" * 100_000, "7", NONE),
    Poison("hundred thousand boxes", r"\boxed{8} " * 100_000, "7", WRONG),
    Poison("boxes in boxes", _nested(r"\boxed{", "8", "}", 10_000), "7", WRONG),
    Poison("right box behind a megabyte", "x" * 1_000_000 + _boxed("7"), "7", RIGHT),
    Poison("right box behind ten megabytes", "lorem ipsum " * 900_000 + _boxed("7"), "7", RIGHT),
    Poison("right box before a megabyte", _boxed("7") + "$" * 1_000_000, "7", RIGHT),
    Poison("right box behind a megabyte of boxes", r"\boxed{8}" * 100_000 + "</think>" + _boxed("7"), "7", RIGHT),
    Poison("tower that is the reference", _boxed("10^{10^{10}}"), "10^{10^{10}}", RIGHT),
    Poison("reference with a tower", _boxed("7"), "10^{10^{10}}", ("wrong", "bad_reference")),
    Poison("reference with a factorial", _boxed("7"), "(10^{9})!", ("wrong", "bad_reference")),
    Poison("empty reference", _boxed("7"), "", ("bad_reference",)),
    Poison("reference with a null", _boxed("7"), "7\x00", ("bad_reference",)),
)  # fmt: skip

POISONS: tuple[Poison, ...] = (
    *(
        Poison(name, _boxed(answer), "7", WRONG)
        for answers in (_EXPLOSIVE, _CODE, _LONG)
        for name, answer in answers.items()
    ),
    *(Poison(name, _boxed(answer), "7", ("wrong", "no_answer")) for name, answer in _UNPRINTABLE.items()),
    *(Poison(name, _boxed(answer), "x+7", HARD) for name, answer in _SLOW_ALGEBRA.items()),
    *_SHAPES,
)

# Whether it is killed by the clock or by another limit depends on how busy the machine is.
HANG, DIE = ("timeout", "error"), ("error",)

RECKLESS: tuple[Poison, ...] = (
    Poison("power tower", "9**9**9**9", "7", HANG),
    Poison("factorial of a factorial, computed", "factorial(factorial(12))", "7", HANG),
    Poison("catastrophic regular expression", "regex " + "a" * 40 + "c", "7", ("timeout",)),
    Poison("sleep", "__import__('time').sleep(600)", "7", ("timeout",)),
    Poison("megabyte of digits", "9" * 1_000_000, "7", HANG),
    Poison("deep nesting", _nested("(", "1", ")", 50_000), "7", HANG),
    Poison("unprintable result", "print 10**100000", "7", DIE),
    Poison("eats memory", "[bytearray(2**26) for _ in range(10**6)]", "7", HANG),
    Poison("exit", "__import__('os')._exit(1)", "7", DIE),
    Poison(
        "leaves a child and exits",
        "[__import__('subprocess').Popen(['sleep', 'MARKER']), __import__('os')._exit(1)]",
        "7",
        HANG,
    ),
)
