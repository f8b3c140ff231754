"""What a critic has answered so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

KEPT_REFUSALS = 20  # the latest ones; the count goes on


@dataclass(frozen=True, slots=True)
class Refusal:
    """A state without a score: the query it belongs to, and why."""

    query: str
    reason: str


@dataclass(frozen=True, slots=True)
class CriticReport:
    """Counts of one critic since it was made or reset; `latest_refusals` holds at most 20, the newest last."""

    asked: int = 0
    refused: int = 0
    latest_refusals: tuple[Refusal, ...] = ()

    @property
    def scored(self) -> int:
        """How many states got a score."""
        return self.asked - self.refused

    def plus(self, asked: int, refusals: Iterable[Refusal]) -> CriticReport:
        """Count further answers."""
        new = tuple(refusals)
        kept = (*self.latest_refusals, *new)[-KEPT_REFUSALS:]
        return CriticReport(self.asked + asked, self.refused + len(new), kept)
