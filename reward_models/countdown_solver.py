"""A solution to a Countdown problem, by trying all combinations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

# More numbers than this take minutes.
MOST_NUMBERS = 5


def solve(numbers: Sequence[int], target: int) -> str | None:
    """Return an expression that uses every number once and reaches the target, None without one.

    Meant for at most `MOST_NUMBERS` numbers.
    """
    terms = [(Fraction(number), str(number)) for number in numbers]
    return _search(terms, Fraction(target), set())


def _search(terms: list[tuple[Fraction, str]], target: Fraction, dead: set[tuple[Fraction, ...]]) -> str | None:
    """Combine two terms and go on; `dead` holds the values from which the target cannot be reached."""
    if len(terms) == 1:
        return terms[0][1] if terms[0][0] == target else None
    values = tuple(sorted(value for value, _ in terms))
    if values in dead:
        return None
    for i, j in itertools.permutations(range(len(terms)), 2):
        (a, left), (b, right) = terms[i], terms[j]
        rest = [term for k, term in enumerate(terms) if k not in (i, j)]
        results = [(a + b, "+"), (a - b, "-"), (a * b, "*")] + ([(a / b, "/")] if b != 0 else [])
        for value, sign in results:
            found = _search([*rest, (value, f"({left}{sign}{right})")], target, dead)
            if found is not None:
                return found
    dead.add(values)
    return None
