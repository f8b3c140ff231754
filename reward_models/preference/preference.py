"""What an oracle says about one pair of responses."""

from __future__ import annotations

from dataclasses import dataclass

from reward_models.errors import VerifierError


@dataclass(frozen=True, slots=True)
class Preference:
    """The probability that the first response beats the second; None where it could not be found out.

    A pair without a probability is left out and counted, never taken for a tie; `detail` says why. Exactly 0.5 is a
    tie, and a tie is no preference: who trains on winners drops it.

    An oracle that looks at the texts in an order is asked in both. `first_in_front` is then the probability that the
    text in front wins with the first response in front, `second_in_front` the same with the second one in front. Both
    are None for an oracle to which order means nothing.

    Raises:
        VerifierError: a probability is not in [0, 1].
    """

    probability: float | None
    detail: str = ""
    first_in_front: float | None = None
    second_in_front: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        for name in ("probability", "first_in_front", "second_in_front"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise VerifierError(
                    f"Preference.{name} is {value!r}; expected a number in [0, 1], or None where there is none"
                )

    @classmethod
    def failed(cls, detail: str) -> Preference:
        """Nothing can be said about this pair."""
        return cls(None, detail)

    @classmethod
    def tie(cls, detail: str) -> Preference:
        """Neither response is better."""
        return cls(0.5, detail)

    @classmethod
    def from_both_orders(cls, first_in_front: float, second_in_front: float, detail: str = "") -> Preference:
        """Average both orders: (P(first wins | first in front) + P(first wins | second in front)) / 2.

        Written around 0.5, so that an oracle which always takes the same place is exactly a tie.
        """
        probability = 0.5 + (first_in_front - second_in_front) / 2
        return cls(probability, detail, first_in_front, second_in_front)

    @property
    def is_decided(self) -> bool:
        """False where the pair must be left out."""
        return self.probability is not None

    @property
    def is_tie(self) -> bool:
        """Whether neither response is better."""
        return self.probability == 0.5

    @property
    def majority(self) -> float | None:
        """The probability turned into a verdict: 0, 0.5 or 1; None stays None.

        This is the game that INPO's lineage plays (methods: INPO §6.2); a preference of 0.6 then counts like one of
        0.99.
        """
        if self.probability is None or self.is_tie:
            return self.probability
        return float(self.probability > 0.5)
