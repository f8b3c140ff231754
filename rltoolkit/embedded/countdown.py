r"""Countdown: combine three given numbers with + - * to reach a target.

A prompt is `3,5,2>16` and a new line. A response tries one expression per line, each with its own check mark, and
ends with the chosen expression in a box:

    5+2=7,7+3=10?16 no
    5+3=8,8*2=16?16 ok
    \boxed{(5+3)*2}

Because every attempt is marked, "stop on a hit, go on after a miss" is something that a policy can learn. Held-out
problems share no set of numbers with those of training: a hash of the numbers, not the draw, decides the split. (With
a split by problem a small policy learns which targets of a set are the training ones, and avoids the others.)
"""

import functools
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
GLIMPSE = 8  # random attempts that a demonstration chooses its first one from
GIVE_UP = 0.5  # a demonstration gives up after a miss with this probability, and boxes its last attempt
MAX_SHOWN = 5  # attempts in a demonstration at most
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
    """One way to combine the three numbers: its two steps, the same as one expression, and the value."""

    steps: str
    expression: str
    value: int

    def line(self, target: int) -> str:
        """The attempt as a line of a response, with its check mark.

        Value and target have two digits each: what is compared stands at the same distance in every line.
        """
        mark = "ok" if self.value == target else "no"
        return f"{self.steps}?{target:02d} {mark}\n"


@functools.cache
def attempts(numbers: tuple[int, int, int]) -> tuple[Attempt, ...]:
    """Every distinct way to combine the numbers without leaving 0..MAX_VALUE.

    The order is that of a systematic search: which number is left for the second step (the first one first), then the
    first operation, then the second.
    """
    found: dict[str, Attempt] = {}
    for index in range(3):
        rest = numbers[:index] + numbers[index + 1 :]
        for inner_op, outer_op in itertools.product("+-*", repeat=2):
            attempt = _combine(rest[0], rest[1], numbers[index], inner_op, outer_op)
            if attempt is not None:
                found.setdefault(attempt.expression, attempt)
    return tuple(found.values())


def problems(split: Split) -> list[Problem]:
    """All problems of a split, in a fixed order."""
    return [problem for problem in _all_problems() if problem.split == split]


def shuffled(problem: Problem, rng: random.Random) -> tuple[int, int, int]:
    """The numbers in a random order, as a prompt shows them."""
    a, b, c = rng.sample(problem.numbers, 3)
    return a, b, c


def prompt_text(numbers: tuple[int, int, int], target: int) -> str:
    """The prompt, with the numbers in the order given."""
    return f"{','.join(map(str, numbers))}>{target:02d}\n"


def demonstration(numbers: tuple[int, int, int], target: int, rng: random.Random) -> str:
    """A response of a searcher that goes through the attempts in order, and often gives up before a hit.

    It starts at the most promising of a few random ones, so that hits are common enough for the check mark to be
    learned, and goes on with the next in the order of `attempts`, so that nothing is tried twice.
    """
    options = attempts(numbers)
    glimpsed = rng.sample(range(len(options)), min(GLIMPSE, len(options)))
    start = min(glimpsed, key=lambda index: abs(options[index].value - target))
    shown: list[Attempt] = []
    for attempt in (options[start:] + options[:start])[:MAX_SHOWN]:
        shown.append(attempt)
        if attempt.value == target or rng.random() < GIVE_UP:
            break
    lines = "".join(attempt.line(target) for attempt in shown)
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
    numbers = shuffled(problem, rng)
    row = {"prompt": prompt_text(numbers, problem.target), "answer": problem.reference}
    if split == "train":
        row["completion"] = demonstration(numbers, problem.target, rng)
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
    steps = f"{inner},{outer.left}{outer.op}{outer.right}={outer.value:02d}"
    return Attempt(steps, expression, outer.value)


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
