"""An oracle that somebody else wrote: its answers are checked, asked for in both orders, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reward_models.errors import VerifierError
from reward_models.local_models.answers import number_in, one_each
from reward_models.local_models.prompts import Prompt
from reward_models.preference.oracle import BaseOracle
from reward_models.preference.preference import Preference


class CheckedOracle(BaseOracle):
    """Makes a foreign oracle keep the contract.

    The oracle has `prefer_many(prompts, firsts, seconds)` with numbers, None or `Preference` as answers, or only
    `prefer(prompt, first, second)`. Each pair is asked in both orders and averaged, so that P(a, b) + P(b, a) = 1;
    how far the oracle itself is from that is in `report.order_gap` and `report.order_gap_max`. NaN, numbers outside
    [0, 1] and what is no number (a text, a truth value) leave the pair without a probability. What the oracle raises
    is not caught.

    Raises:
        VerifierError: there is neither method, or an answer is not one per pair.
    """

    def __init__(self, oracle: Any) -> None:
        super().__init__()
        if not any(callable(getattr(oracle, name, None)) for name in ("prefer_many", "prefer")):
            raise VerifierError(
                f"the oracle is {type(oracle).__name__}, which has neither prefer_many(prompts, firsts, seconds) nor "
                "prefer(prompt, first, second); pass an object that has one"
            )
        self.oracle = oracle

    def _compare(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        both = self._ask([*prompts, *prompts], [*firsts, *seconds], [*seconds, *firsts])
        return [self._average(*pair) for pair in zip(both[: len(firsts)], both[len(firsts) :], strict=True)]

    def _ask(self, prompts: list[Prompt], firsts: list[str], seconds: list[str]) -> list[Any]:
        if not callable(getattr(self.oracle, "prefer_many", None)):
            return [self.oracle.prefer(*pair) for pair in zip(prompts, firsts, seconds, strict=True)]
        answers = self.oracle.prefer_many(prompts, firsts, seconds)
        return one_each(answers, len(prompts), f"{type(self.oracle).__name__}.prefer_many", "pairs")

    def _average(self, forward: Any, backward: Any) -> Preference:
        name = type(self.oracle).__name__
        first_wins, problem = _probability(forward)
        if first_wins is None:
            return Preference.failed(f"{name} with the first text in front: {problem}")
        second_wins, problem = _probability(backward)
        if second_wins is None:
            return Preference.failed(f"{name} with the second text in front: {problem}")
        return Preference.from_both_orders(first_wins, second_wins)


def checked_oracle(oracle: Any) -> BaseOracle:
    """Return one of our own oracles as it is, any other in a `CheckedOracle`."""
    return oracle if isinstance(oracle, BaseOracle) else CheckedOracle(oracle)


def _probability(raw: Any) -> tuple[float | None, str]:
    """Return the number in an answer, or None and what is wrong with it."""
    if isinstance(raw, Preference):
        return raw.probability, raw.detail
    if raw is None:
        return None, "no answer"
    number = number_in(raw, 0, 1)
    return number.value, number.problem
