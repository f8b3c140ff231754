r"""Countdown: combine three given numbers with + - * to reach a target.

A prompt is `3,5,2>16` and a new line. A response tries one expression per line, each with its own check mark, and
ends with the chosen expression in a box:

    5+2=7,7*3=21?16 no
    5+3=8,8*2=16?16 ok
    \boxed{(5+3)*2}

Because every attempt is marked, "stop on a hit, go on after a miss" is something that a policy can learn. Held-out
problems share no set of numbers with those of training: a hash of the numbers, not the draw, decides the split. (With
a split by problem a small policy learns which targets of a set are the training ones, and avoids the others.)
"""

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]

MAX_NUMBER = 10
MAX_VALUE = 99  # no value on the way may be larger: the arithmetic stays within two digits
TEST_SHARE = 0.25
GLIMPSE = 4  # random attempts that a demonstration chooses each of its own from
GIVE_UP = 0.4  # a demonstration gives up after a miss with this probability, and boxes its last attempt
MAX_SHOWN = 8  # attempts in a demonstration at most
ATTEMPT_PATTERN = r"^\S+=\d+,\S+=\d+\?\d+ (ok|no)$"


@dataclass(frozen=True)
class Problem:
    """Three numbers in ascending order and a target that they reach."""

    numbers: tuple[int, int, int]
    target: int

    @property
    def reference(self) -> str:
        """The gold column, as `CountdownVerifier` reads it."""
        return f"numbers={','.join(map(str, self.numbers))};target={self.target}"

    @property
    def split(self) -> Split:
        """Where the problem belongs, the same on every machine."""
        digest = hashlib.sha256(repr(self.numbers).encode()).digest()
        return "test" if digest[0] < 256 * TEST_SHARE else "train"


@dataclass(frozen=True)
class Attempt:
    """One way to combine the three numbers: its two steps, the value, and the same as one expression."""

    steps: str
    expression: str
    value: int

    def line(self, target: int) -> str:
        """The attempt as a line of a response, with its check mark."""
        mark = "ok" if self.value == target else "no"
        return f"{self.steps}?{target} {mark}\n"


def attempts(numbers: tuple[int, int, int]) -> list[Attempt]:
    """Every distinct way to combine the numbers without leaving 0..MAX_VALUE, in a fixed order."""
    found: dict[str, Attempt] = {}
    for index in range(3):
        rest = numbers[:index] + numbers[index + 1 :]
        for inner_op, outer_op in itertools.product("+-*", repeat=2):
            attempt = _combine(rest[0], rest[1], numbers[index], inner_op, outer_op)
            if attempt is not None:
                found.setdefault(attempt.expression, attempt)
    return list(found.values())


def problems(split: Split) -> list[Problem]:
    """All problems of a split, in a fixed order."""
    return [problem for problem in _all_problems() if problem.split == split]


def prompt_text(problem: Problem, rng: random.Random) -> str:
    """The prompt, with the numbers in a random order."""
    numbers = list(problem.numbers)
    rng.shuffle(numbers)
    return f"{','.join(map(str, numbers))}>{problem.target}\n"


def demonstration(problem: Problem, rng: random.Random) -> str:
    """A response of a modest searcher: distinct attempts until a hit, or until it gives up.

    Each attempt is the nearest to the target among a few random ones, so that trying pays and hits are common enough
    for the check mark to be learned.
    """
    shown: list[Attempt] = []
    options = attempts(problem.numbers)
    while options:
        glimpsed = rng.sample(options, min(GLIMPSE, len(options)))
        attempt = min(glimpsed, key=lambda option: abs(option.value - problem.target))
        options.remove(attempt)
        shown.append(attempt)
        if attempt.value == problem.target or len(shown) == MAX_SHOWN or rng.random() < GIVE_UP:
            break
    lines = "".join(attempt.line(problem.target) for attempt in shown)
    return f"{lines}\\boxed{{{shown[-1].expression}}}"


def countdown_rows(split: Split, limit: int | None = None, seed: int = 0) -> list[dict[str, str]]:
    """Rows with `prompt`, `answer` (the reference) and, for training, `completion` (a demonstration).

    The test split has one row a problem. The training split draws problems with replacement once `limit` exceeds
    their number, each draw with its own order of numbers and its own demonstration.
    """
    rng = random.Random(f"countdown-{split}-{seed}")
    pool = problems(split)
    rng.shuffle(pool)
    if limit is None:
        limit = len(pool)
    chosen = itertools.islice(itertools.cycle(pool), limit) if split == "train" else pool[:limit]
    return [_row(problem, split, rng) for problem in chosen]


def _row(problem: Problem, split: Split, rng: random.Random) -> dict[str, str]:
    row = {"prompt": prompt_text(problem, rng), "answer": problem.reference}
    if split == "train":
        row["completion"] = demonstration(problem, rng)
    return row


def _all_problems() -> Iterator[Problem]:
    for numbers in itertools.combinations_with_replacement(range(1, MAX_NUMBER + 1), 3):
        for target in sorted({attempt.value for attempt in attempts(numbers)}):
            if target > 0:
                yield Problem(numbers, target)


def _combine(a: int, b: int, c: int, inner_op: str, outer_op: str) -> Attempt | None:
    inner = _step(a, b, inner_op)
    outer = None if inner is None else _step(inner.value, c, outer_op)
    if inner is None or outer is None:
        return None
    bracketed = f"({inner.left}{inner_op}{inner.right})"
    swapped = outer.left != inner.value  # the larger operand stands first
    expression = f"{c}{outer_op}{bracketed}" if swapped else f"{bracketed}{outer_op}{c}"
    return Attempt(f"{inner},{outer}", expression, outer.value)


@dataclass(frozen=True)
class _Step:
    left: int
    op: str
    right: int
    value: int

    def __str__(self) -> str:
        return f"{self.left}{self.op}{self.right}={self.value}"


def _step(a: int, b: int, op: str) -> _Step | None:
    """One operation with the larger operand first, so that a difference is never negative; None above MAX_VALUE."""
    high, low = max(a, b), min(a, b)
    value = {"+": high + low, "-": high - low, "*": high * low}[op]
    return _Step(high, op, low, value) if value <= MAX_VALUE else None
