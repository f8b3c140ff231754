"""What `rltoolkit verify` found: counts, and the rows that a person should look at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_models import Outcome
from reward_models.verdict import Verdict
from rltoolkit.errors import DataError

UNSCORED = (Outcome.BAD_REFERENCE, Outcome.TIMEOUT, Outcome.ERROR)
# Characters of a text in a line for people; the JSON has a little more.
SHOWN_CHARS = 60
KEPT_CHARS = 500


@dataclass(frozen=True)
class JudgedRow:
    """A row that a person should look at: its line in the file from 1, and what was said about it."""

    line: int
    reference: str
    extracted: str | None
    outcome: str
    detail: str
    label: bool | None

    @classmethod
    def of(cls, line: int, reference: object, label: bool | None, verdict: Verdict) -> JudgedRow:
        """A row and its verdict, long texts cut; a reference that is no text is shown as the JSON that it is."""
        text = reference if isinstance(reference, str) else json.dumps(reference)
        extracted = None if verdict.extracted is None else verdict.extracted[:KEPT_CHARS]
        return cls(line, text[:KEPT_CHARS], extracted, str(verdict.outcome), verdict.detail, label)

    def text(self) -> str:
        """The row in one line."""
        said = f"line {self.line}: {self.outcome}" + ("" if self.label is None else f", label {_yes(self.label)}")
        answer = "none" if self.extracted is None else _short(self.extracted)
        return f"{said}; reference {_short(self.reference)}, answer {answer} ({_printable(self.detail)})"


@dataclass(frozen=True)
class VerifyReport:
    """Counts over a file, and the rows that were judged otherwise than labelled or could not be scored.

    `agree`, `false_positive` (judged correct, label says no) and `false_negative` (not judged correct, label says yes)
    are None without labels; a row that could not be scored is not judged correct. `seconds` are those of the judging,
    without the start of the workers. `confusion` has, for each outcome, its rows with label true and with label false.
    """

    rows: int
    outcomes: dict[str, int]
    agree: int | None
    false_positive: int | None
    false_negative: int | None
    seconds: float
    verdicts_per_second: float
    confusion: dict[str, dict[str, int]] | None
    disagreements: tuple[JudgedRow, ...] | None
    unscored: tuple[JudgedRow, ...]

    def lines(self, show: int = 5) -> list[str]:
        """The counts in words, with the first `show` rows of each kind that should be looked at."""
        counts = ", ".join(f"{name} {count}" for name, count in self.outcomes.items() if count)
        text = [f"{self.rows} rows in {self.seconds:.1f} s ({self.verdicts_per_second:.0f} a second): {counts}"]
        if self.confusion is not None and self.agree is not None:
            text += _table(self.confusion)
            share = 100 * self.agree / self.rows
            wrong = f"{self.false_positive} false positive, {self.false_negative} false negative"
            text.append(f"agrees with the label in {self.agree} of {self.rows} rows ({share:.2f} %): {wrong}")
        scored = [row for row in self.disagreements or () if row.outcome not in UNSCORED]
        if scored:
            text += _examples(f"{len(scored)} row(s) judged otherwise than labelled", scored, show)
        if self.unscored:
            text += _examples(f"{len(self.unscored)} row(s) could not be scored", self.unscored, show)
        return text

    def write(self, path: Path) -> None:
        """Write all of it as JSON; raises DataError where the file cannot be written."""
        content = vars(self) | {name: _plain(getattr(self, name)) for name in ("disagreements", "unscored")}
        try:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise _not_writable(path, error.strerror) from error


def require_place_for(path: Path, source: Path) -> None:
    """Raise DataError unless `path` can be written as far as is seen now, before hours are spent on what goes there.

    The file `source` that is judged is no place for its own report.
    """
    if not path.parent.is_dir():
        raise _not_writable(path, "no such folder")
    if path.is_dir():
        raise _not_writable(path, "is a folder")
    if path.exists() and source.exists() and path.samefile(source):
        raise DataError(f"{path} is the file that is judged, which would be lost; give another path for the report")


def make_report(judged: Sequence[JudgedRow], seconds: float, *, labelled: bool) -> VerifyReport:
    """Count rows that have been judged; `seconds` is what that took."""
    counted = Counter((row.outcome, row.label) for row in judged)
    outcomes = {str(outcome): sum(counted[outcome, label] for label in (True, False, None)) for outcome in Outcome}
    unscored = tuple(row for row in judged if row.outcome in UNSCORED)
    speed = len(judged) / seconds if seconds > 0 else 0.0
    if not labelled:
        return VerifyReport(len(judged), outcomes, None, None, None, seconds, speed, None, None, unscored)
    confusion = {str(o): {"true": counted[o, True], "false": counted[o, False]} for o in Outcome}
    disagreements = tuple(row for row in judged if (row.outcome == Outcome.CORRECT) is not row.label)
    false_positive = confusion[Outcome.CORRECT]["false"]
    false_negative = len(disagreements) - false_positive
    agree = len(judged) - len(disagreements)
    return VerifyReport(
        len(judged), outcomes, agree, false_positive, false_negative, seconds, speed, confusion, disagreements, unscored
    )


def _table(confusion: dict[str, dict[str, int]]) -> list[str]:
    """The verdicts against the labels, without outcomes that did not occur."""
    lines = [f"{'verdict':<14}{'label true':>12}{'label false':>12}"]
    rows = [(name, counts) for name, counts in confusion.items() if any(counts.values())]
    return lines + [f"{name:<14}{counts['true']:>12}{counts['false']:>12}" for name, counts in rows]


def _examples(title: str, rows: Sequence[JudgedRow], show: int) -> list[str]:
    more = f", the first {show}" if 0 < show < len(rows) else ""
    return [f"{title}{more}{':' if show else ''}", *(f"  {row.text()}" for row in rows[:show])]


def _plain(rows: tuple[JudgedRow, ...] | None) -> list[dict[str, Any]] | None:
    return None if rows is None else [vars(row) for row in rows]


def _yes(label: bool) -> str:
    return "true" if label else "false"


def _printable(text: str) -> str:
    """The beginning of a text as one line; what no terminal can print is escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: 2 * SHOWN_CHARS])


def _short(text: str) -> str:
    """The beginning of a text as one line in quotes."""
    shown = repr(text)
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[: SHOWN_CHARS - 3]}..."


def _not_writable(path: Path, reason: str | None) -> DataError:
    return DataError(f"{path} cannot be written: {reason}; give a path in a folder that exists")
