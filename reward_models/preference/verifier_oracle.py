"""A verifier as a preference oracle: the correct answer beats the wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reward_models.errors import VerifierError
from reward_models.local_models.prompts import Prompt, as_messages, query_name
from reward_models.preference.oracle import BaseOracle
from reward_models.preference.preference import Preference
from reward_models.reward_func import reference_text
from reward_models.verdict import Verdict, Verifier, checked

if TYPE_CHECKING:
    from reward_models.pool import VerifierPool

References = Mapping[str, str] | Callable[[Prompt], str | None]


class VerifierOracle(BaseOracle):
    """1.0 where only the first response is correct, 0.0 where only the second is, a tie where both score the same.

    With a 0/1 verifier most pairs tie; a pair with a verdict that has no score (timeout, bad reference, error) has no
    probability. `references` gives the reference answer of a prompt: a mapping from the prompt's text (for messages
    from the text of the last message of the user), or a function of the prompt. A `VerifierPool` judges with a
    deadline, a bare verifier in this process without one; the pool is left open.
    """

    def __init__(self, verifier: Verifier | VerifierPool, references: References) -> None:
        super().__init__()
        if not callable(getattr(verifier, "check", None)) and not callable(getattr(verifier, "check_many", None)):
            raise VerifierError(
                f"the verifier is {type(verifier).__name__}, which has neither check(response, reference) nor "
                "check_many; pass a verifier or a VerifierPool"
            )
        self.verifier = verifier
        self._references = references

    def _compare(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        references = [self._reference(prompt) for prompt in prompts]
        pairs = list(zip(references, firsts, seconds, strict=True))
        # each answer once: in a tournament the same one meets several others
        answers = list(
            dict.fromkeys((text, ref) for ref, *texts in pairs if isinstance(ref, str) for text in texts),
        )
        verdicts = dict(zip(answers, self._judge(answers), strict=True))
        return [
            _by_verdicts(verdicts[first, ref], verdicts[second, ref])
            if isinstance(ref, str)
            else Preference.failed(_no_reference(prompt, ref))
            for prompt, (ref, first, second) in zip(prompts, pairs, strict=True)
        ]

    def _reference(self, prompt: Prompt) -> Any:
        """Return the reference, a number as its text; None if there is none."""
        if not isinstance(self._references, Mapping):
            return reference_text(self._references(prompt))
        asked = [message["content"] for message in as_messages(prompt) if message["role"] == "user"]
        return reference_text(self._references.get(asked[-1])) if asked else None

    def _judge(self, answers: list[tuple[str, str]]) -> list[Verdict]:
        check_many = getattr(self.verifier, "check_many", None)
        if callable(check_many):
            verdicts: list[Verdict] = check_many([text for text, _ in answers], [ref for _, ref in answers])
            return verdicts
        return [checked(self.verifier, text, ref) for text, ref in answers]


def _no_reference(prompt: Prompt, found: object) -> str:
    what = "no reference" if found is None else f"the reference is {type(found).__name__}, expected str,"
    return f"{what} for the prompt {query_name(prompt)!r}"


def _by_verdicts(first: Verdict, second: Verdict) -> Preference:
    for name, verdict in (("first", first), ("second", second)):
        if verdict.score is None:
            return Preference.failed(f"the {name} text: {verdict.outcome}, {verdict.detail}")
    if first.score == second.score:
        return Preference.tie(f"{first.outcome} and {second.outcome}")
    return Preference(float(first.score == 1.0), f"{first.outcome} against {second.outcome}")
