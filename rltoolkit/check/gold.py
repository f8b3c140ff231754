"""Does the verifier accept the gold answers? A row on which it does not teaches the model that right is wrong."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from reward_models import CountdownVerifier, MathVerifier, VerifierPool
from reward_models.countdown import CountdownProblem
from reward_models.verdict import Outcome, Verdict, Verifier

# Trying all ways to combine more numbers than this takes minutes.
MOST_NUMBERS = 5


@dataclass(frozen=True)
class GoldCheck:
    """Outcomes of the gold answers; `failures` are (row from 1, reference, verdict) of those not accepted.

    `untried` rows are those for which no right response could be written. `sure` is False for a verifier that is not
    ours, which may read another form than a box.
    """

    outcomes: Counter[Outcome]
    failures: tuple[tuple[int, str, Verdict], ...]
    untried: int
    sure: bool

    def lines(self) -> list[str]:
        """The result in words, with the first failures."""
        text = [f"{self.outcomes[Outcome.CORRECT]} of {self.outcomes.total()} gold answers accepted"]
        for row, reference, verdict in self.failures[:5]:
            shown = reference if len(reference) <= 60 else f"{reference[:57]}..."
            text.append(f"row {row}: gold {shown!r} is judged {verdict.outcome} ({verdict.detail})")
        if len(self.failures) > 5:
            text.append(f"and {len(self.failures) - 5} more")
        if self.untried:
            text.append(f"{self.untried} row(s) not tried: more than {MOST_NUMBERS} numbers to combine")
        return text


def check_gold(verifier: Verifier, references: Sequence[str], *, workers: int = 2, timeout_s: float = 5.0) -> GoldCheck:
    """Judge every reference against itself, written as a right response would write it."""
    responses = [gold_response(verifier, reference) for reference in references]
    tried = [(row, text) for row, text in enumerate(responses) if text is not None]
    with VerifierPool(verifier, workers=workers, timeout_s=timeout_s) as pool:
        verdicts = pool.check_many([text for _, text in tried], [references[row] for row, _ in tried])
    judged = [(row, verdict) for (row, _), verdict in zip(tried, verdicts, strict=True)]
    failures = tuple((row + 1, references[row], v) for row, v in judged if v.outcome is not Outcome.CORRECT)
    sure = isinstance(verifier, MathVerifier | CountdownVerifier)
    return GoldCheck(Counter(verdict.outcome for verdict in verdicts), failures, len(references) - len(tried), sure)


def gold_response(verifier: Verifier, reference: str) -> str | None:
    """A right response to a question with this gold answer: the answer, or for Countdown a solution, in a box.

    None where finding a solution would take too long. A reference that cannot be read or has no solution gives an
    empty box, which no verifier accepts.
    """
    if not isinstance(verifier, CountdownVerifier):
        return f"\\boxed{{{reference}}}"
    problem = CountdownProblem.from_reference(reference)
    if problem is not None and len(problem.numbers) > MOST_NUMBERS:
        return None
    solution = None if problem is None else solve(problem)
    return "\\boxed{}" if solution is None else f"\\boxed{{{solution}}}"


def solve(problem: CountdownProblem) -> str | None:
    """An expression that uses every number once and reaches the target, by trying all; None without one."""
    terms = [(Fraction(number), str(number)) for number in problem.numbers]
    return _search(terms, Fraction(problem.target), set())


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
