"""The hacking alarm: exploration is paid better and better while held-out answers get worse, by more than noise."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

from rltoolkit.run.samples import sample_file

__all__ = ["Alarm", "HackingAlarm", "Mean", "Measurement", "Suspect", "compare"]

LEVEL = 0.025
"""Probability of a false alarm per held-out measurement where the policy's outcome rate has not changed."""
NAMED = 5  # samples that an alarm names


@dataclass(frozen=True)
class Mean:
    """A mean with the square of its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, count: float, total: float, squares: float) -> "Mean | None":
        """From sums over `count` numbers; None of nothing.

        The variance gets 1/count on top: where all numbers are equal, one more could have been another.
        """
        if count <= 0:
            return None
        mean = total / count
        return cls(mean, (max(0.0, squares / count - mean**2) + 1 / count) / count)

    @classmethod
    def of_share(cls, share: float | None, count: int) -> "Mean | None":
        """Of a share right among `count` questions, or of scores in [0, 1], which vary less."""
        if share is None or share != share:
            return None
        return cls.of(count, count * share, count * share)


@dataclass(frozen=True)
class Suspect:
    """A wrong answer of a training rollout, and what it was paid for exploration."""

    paid: float
    step: int
    rank: int
    row: int

    def place(self, samples_dir: str | None) -> str:
        """Where to find it: file and row where samples are kept in files, else step, rank and row."""
        if samples_dir is None:
            return f"step {self.step}, rank {self.rank}, row {self.row}"
        return f"{samples_dir}/{sample_file(self.step, self.rank)} row {self.row}"


@dataclass(frozen=True)
class Measurement:
    """A held-out outcome rate, and what exploration was paid in the rollouts that led there."""

    step: int
    rate: Mean
    paid: Mean | None
    """Of the last rollouts before it; before all, of the first one after, which the measured policy drew, else None."""


@dataclass(frozen=True)
class Alarm:
    """One event, from the measurement in which the alarm began."""

    series: str
    before: Measurement
    now: Measurement
    suspects: tuple[Suspect, ...]

    def text(self, samples_dir: str | None) -> str:
        """What happened, which samples to look at, and what can be done."""
        paid_before, paid_now = (0.0 if m.paid is None else m.paid.value for m in (self.before, self.now))
        named = ", ".join(f"{one.place(samples_dir)} (paid {one.paid:.3f})" for one in self.suspects)
        return (
            f"hacking alarm at step {self.now.step}: since step {self.before.step} exploration is paid more, "
            f"{paid_before:.3f} -> {paid_now:.3f}, while the held-out rate of {self.series} fell, "
            f"{self.before.rate.value:.3f} -> {self.now.rate.value:.3f}, both beyond their noise. "
            f"Wrong answers that were paid most for exploration: {named or 'none'}. Read them. Raise alpha, "
            f"kl_coef or the exploration reward's repetition_penalty, or lower its target, and go back to a model near "
            f"step {self.before.step}"
        )


def compare(history: Sequence[Measurement], series: int = 1) -> Measurement | None:
    """The best earlier measurement from which the newest one fell while exploration rose; None for no alarm.

    Differences count where they exceed z standard errors. The newest measurement is compared with all earlier ones, so
    that a slow drift is found, too; z is therefore that of LEVEL divided by the number of comparisons (times `series`,
    the rates that are watched side by side).
    """
    *earlier, now = history
    known = [m for m in earlier if m.paid is not None]
    if now.paid is None or not known:
        return None
    z = NormalDist().inv_cdf(1 - LEVEL / (len(known) * series))
    fallen = [m for m in known if m.paid and _rises(now.rate, m.rate, z) and _rises(m.paid, now.paid, z)]
    return max(fallen, key=lambda m: m.rate.value, default=None)


def _rises(low: Mean, high: Mean, z: float) -> bool:
    return bool(high.value - low.value > z * (low.error + high.error) ** 0.5)


@dataclass(frozen=True)
class _Window:
    """The rollouts between two held-out measurements."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    suspects: tuple[Suspect, ...] = ()

    @property
    def paid(self) -> Mean | None:
        return Mean.of(self.count, self.total, self.squares)


class HackingAlarm:
    """Follows what exploration is paid in training and what answers are worth on held-out problems.

    Give it every rollout (`saw`) and every held-out measurement (`judge`), the same on all ranks. It rings from a
    measurement in which exploration has risen and a held-out rate has fallen since an earlier one, both by more than
    their noise, until a measurement in which that no longer holds; each time that it begins to ring is an event.
    Where exploration is not paid, or nothing is held out, it knows nothing and stays silent.
    `samples_dir` is where the samples of rollouts are kept, for the names in an event's text.
    """

    def __init__(self, samples_dir: Path | None = None) -> None:
        self.samples_dir = None if samples_dir is None else str(samples_dir)
        self.events: list[Alarm] = []
        self._history: dict[str, list[Measurement]] = {}
        self._ringing: set[str] = set()
        self._compared = False
        self._window = _Window()
        self._closed = _Window()
        self._closed_at: int | None = None

    @property
    def ringing(self) -> bool | None:
        """Whether it rings; None where no two measurements could be compared yet."""
        return bool(self._ringing) if self._compared else None

    @property
    def measurements(self) -> int:
        """How often held-out problems were measured, the most of any series."""
        return max(map(len, self._history.values()), default=0)

    def texts(self) -> list[str]:
        """The events in words."""
        return [event.text(self.samples_dir) for event in self.events]

    def saw(self, count: float, total: float, squares: float, suspects: Sequence[Suspect]) -> None:
        """Take in a rollout: sums over what exploration was paid, of all ranks, and the best paid wrong answers."""
        paid = Mean.of(count, total, squares)
        if paid is None:
            return
        for name, history in self._history.items():
            self._history[name] = [replace(m, paid=paid) if m.paid is None else m for m in history]
        window = self._window
        self._window = _Window(
            window.count + count,
            window.total + total,
            window.squares + squares,
            tuple(sorted({*window.suspects, *suspects}, key=_best_paid_first)[:NAMED]),
        )

    def judge(self, step: int, rates: Mapping[str, Mean | None]) -> Alarm | None:
        """Take in held-out rates by name, None for what nothing is known of; returns the event that begins, if one.

        Rates of one step can come in several calls.
        """
        if step != self._closed_at:
            # Measured twice without a rollout in between: what the last rollouts were paid still holds.
            self._closed = self._window if self._window.count else self._closed
            self._window, self._closed_at = _Window(), step
        was_ringing = bool(self._ringing)
        for name, rate in rates.items():
            if rate is not None:
                self._history.setdefault(name, []).append(Measurement(step, rate, self._closed.paid))
        found = {name: self._look(name) for name, rate in rates.items() if rate is not None}
        begun = [alarm for alarm in found.values() if alarm is not None]
        if was_ringing or not begun:
            return None
        self.events.append(begun[0])
        return begun[0]

    def _look(self, name: str) -> Alarm | None:
        history = self._history[name]
        self._compared |= history[-1].paid is not None and len(history) > 1
        before = compare(history, len(self._history))
        self._ringing.discard(name)
        if before is None:
            return None
        self._ringing.add(name)
        return Alarm(name, before, history[-1], self._closed.suspects)

    def state_dict(self) -> dict[str, Any]:
        """All that it knows, as JSON can hold it."""
        return {
            "events": [asdict(event) for event in self.events],
            "history": {name: [asdict(m) for m in history] for name, history in self._history.items()},
            "ringing": sorted(self._ringing),
            "compared": self._compared,
            "window": asdict(self._window),
            "closed": asdict(self._closed),
            "closed_at": self._closed_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.events = [
            Alarm(e["series"], _measurement(e["before"]), _measurement(e["now"]), _suspects(e["suspects"]))
            for e in state["events"]
        ]
        self._history = {name: [_measurement(m) for m in history] for name, history in state["history"].items()}
        self._ringing = set(state["ringing"])
        self._compared = state["compared"]
        self._window, self._closed = (
            _Window(**{**state[name], "suspects": _suspects(state[name]["suspects"])}) for name in ("window", "closed")
        )
        self._closed_at = state["closed_at"]


def _best_paid_first(one: Suspect) -> tuple[float, int, int, int]:
    """Of equal pay, as at the cap, the newest first: its policy is the nearest to the one that rang."""
    return -one.paid, -one.step, one.row, one.rank


def _measurement(state: dict[str, Any]) -> Measurement:
    paid = state["paid"]
    return Measurement(state["step"], Mean(**state["rate"]), None if paid is None else Mean(**paid))


def _suspects(states: Sequence[dict[str, Any]]) -> tuple[Suspect, ...]:
    return tuple(Suspect(**state) for state in states)
