"""Several verifiers as one: all of them must accept an answer, or any of them may.

What comes out, first line that applies:

| all of                             | any of                                                 |
|------------------------------------|--------------------------------------------------------|
| one says bad_reference: that       | all say bad_reference: that; else those are left out   |
| one says wrong: that               | one says correct: that                                 |
| one says no_answer: that           | one says timeout or error: that, it might have accepted |
| one says timeout or error: that    | one says wrong: that                                   |
| correct                            | no_answer                                              |

A bad reference comes first although a certain "wrong" would settle the matter: it depends on the reference alone,
and were the rest to decide, wrong answers would be kept and right ones left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from reward_models.errors import VerifierError
from reward_models.verdict import Outcome, Verdict, Verifier, checked, require_verifier

_ALL_ORDER = (Outcome.BAD_REFERENCE, Outcome.WRONG, Outcome.NO_ANSWER, Outcome.TIMEOUT, Outcome.ERROR, Outcome.CORRECT)
_ANY_ORDER = (Outcome.CORRECT, Outcome.TIMEOUT, Outcome.ERROR, Outcome.WRONG, Outcome.NO_ANSWER, Outcome.BAD_REFERENCE)


class _Combination:
    """Verifiers that judge the same response by the same reference; `order` says which outcome decides."""

    order: tuple[Outcome, ...]

    def __init__(self, verifiers: Sequence[Verifier]) -> None:
        name = type(self).__name__
        if not isinstance(verifiers, list | tuple) or not verifiers:
            raise VerifierError(f"{name} verifiers is {verifiers!r}; give a list with at least one verifier")
        for number, verifier in enumerate(verifiers, start=1):
            require_verifier(verifier, f"{name} verifier {number}")
        self.verifiers = tuple(verifiers)

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response by all verifiers; the verdict is that of the first one with the outcome that decides."""
        verdicts = [checked(verifier, response, reference) for verifier in self.verifiers]
        outcomes = [verdict.outcome for verdict in verdicts]
        deciding = outcomes.index(min(outcomes, key=self.order.index))
        verdict = verdicts[deciding]
        name = type(self.verifiers[deciding]).__name__
        by = f"{type(self).__name__}: {outcomes.count(verdict.outcome)} of {len(outcomes)} {verdict.outcome}"
        detail = f"{by}, first {name} (number {deciding + 1}): {verdict.detail}"
        return Verdict(verdict.outcome, verdict.score, verdict.extracted, detail)

    def warm_up(self) -> None:
        """Warm up every verifier."""
        for verifier in self.verifiers:
            warm_up = getattr(verifier, "warm_up", None)
            if callable(warm_up):
                warm_up()


class AllOf(_Combination):
    """Correct only where every verifier says so, for instance the right number in the right form.

    The verifiers see the same response and the same reference, one after the other within one time limit. One that
    raises counts as an error. Which outcome wins over which stands at the top of this module.

    Raises:
        VerifierError: no verifier is given, or something that is none.
    """

    order = _ALL_ORDER

    def gold_response(self, reference: str) -> str | None:
        """The gold responses of all verifiers one below the other; None if one of them has none."""
        responses = [_gold_response(verifier, reference) for verifier in self.verifiers]
        written = [response for response in responses if response is not None]
        return "\n".join(dict.fromkeys(written)) if len(written) == len(responses) else None


class AnyOf(_Combination):
    """Correct where at least one verifier says so, for instance an integer or else a text.

    The verifiers see the same response and the same reference, one after the other within one time limit. One that
    raises counts as an error. Which outcome wins over which stands at the top of this module.

    Raises:
        VerifierError: no verifier is given, or something that is none.
    """

    order = _ANY_ORDER

    def gold_response(self, reference: str) -> str | None:
        """The gold response of the first verifier that can read the reference and has one."""
        readable = [v for v in self.verifiers if checked(v, "", reference).outcome is not Outcome.BAD_REFERENCE]
        responses = (_gold_response(verifier, reference) for verifier in readable or self.verifiers)
        return next((response for response in responses if response is not None), None)


def _gold_response(verifier: Verifier, reference: str) -> str | None:
    write = getattr(verifier, "gold_response", None)
    return write(reference) if callable(write) else None
