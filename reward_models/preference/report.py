"""What an oracle has answered so far: counts, and how much the order of the texts moved it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from reward_models.preference.preference import Preference


@dataclass(frozen=True, slots=True)
class OracleReport:
    """Counts of one oracle since it was made or reset.

    Of `comparisons` pairs, `failed` have no probability, `ties` are exactly 0.5 (equal texts, answered without asking,
    among them: `identical`). `both_orders` pairs were shown in both orders: in `inconsistent` of them the same place
    won twice, whatever stood there. `last_failure` is the latest reason.
    """

    comparisons: int = 0
    identical: int = 0
    ties: int = 0
    failed: int = 0
    both_orders: int = 0
    inconsistent: int = 0
    front_excess: float = 0.0
    order_gap_sum: float = 0.0
    order_gap_max: float = 0.0
    last_failure: str = ""

    @property
    def position_bias(self) -> float | None:
        """Mean probability that the text in front wins, less 0.5; in [-0.5, 0.5], 0 is without bias."""
        return self.front_excess / self.both_orders if self.both_orders else None

    @property
    def order_gap(self) -> float | None:
        """Mean of |P(a, b) + P(b, a) - 1| before averaging; in [0, 1], 0 is antisymmetric."""
        return self.order_gap_sum / self.both_orders if self.both_orders else None

    def plus(self, preferences: Iterable[Preference], *, identical: int = 0) -> OracleReport:
        """Count further answers; `identical` of them were given without asking."""
        report = replace(self, identical=self.identical + identical)
        for preference in preferences:
            report = report._plus_one(preference)
        return report

    def _plus_one(self, answer: Preference) -> OracleReport:
        counted = replace(self, comparisons=self.comparisons + 1, ties=self.ties + answer.is_tie)
        if not answer.is_decided:
            return replace(counted, failed=self.failed + 1, last_failure=answer.detail)
        if answer.first_in_front is None or answer.second_in_front is None:
            return counted
        gap = answer.first_in_front + answer.second_in_front - 1.0
        same_place = (answer.first_in_front - 0.5) * (answer.second_in_front - 0.5) > 0
        return replace(
            counted,
            both_orders=self.both_orders + 1,
            inconsistent=self.inconsistent + same_place,
            front_excess=self.front_excess + gap / 2,
            order_gap_sum=self.order_gap_sum + abs(gap),
            order_gap_max=max(self.order_gap_max, abs(gap)),
        )
