"""`rltoolkit verify`: judge the responses of a JSONL file, and compare with labels where there are some."""

from __future__ import annotations

import inspect
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_models import Outcome, VerifierPool
from reward_models.reward_func import completion_text
from reward_models.verdict import Verdict, Verifier
from rltoolkit.errors import DataError, RLToolkitError
from rltoolkit.recipe.plugins import VERIFIER_CLASSES, import_object
from rltoolkit.recipe.problems import RefusedError, did_you_mean
from rltoolkit.recipe.yaml_source import parse_scalar

# Rows judged between two movements of the progress bar.
CHUNK = 128
UNSCORED = (Outcome.BAD_REFERENCE, Outcome.TIMEOUT, Outcome.ERROR)


@dataclass(frozen=True)
class VerifyRequest:
    """What to judge: a file, its columns, and a verifier with `option=value` texts."""

    file: Path
    verifier: str
    response: str
    reference: str
    label: str | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifyReport:
    """Counts over a file.

    `agree`, `false_positive` (judged correct, label says no) and `false_negative` (not judged correct, label says yes)
    are None without labels; a row that could not be scored is not judged correct. `seconds` are those of the judging.
    """

    rows: int
    outcomes: dict[str, int]
    agree: int | None
    false_positive: int | None
    false_negative: int | None
    seconds: float

    def lines(self) -> list[str]:
        """The counts in words."""
        counts = ", ".join(f"{name} {count}" for name, count in self.outcomes.items() if count)
        text = [f"{self.rows} rows in {self.seconds:.1f} s: {counts}"]
        if self.agree is not None:
            share = 100 * self.agree / self.rows
            wrong = f"{self.false_positive} false positive, {self.false_negative} false negative"
            text.append(f"agrees with the label in {self.agree} of {self.rows} rows ({share:.2f} %): {wrong}")
        unscored = sum(self.outcomes[outcome.value] for outcome in UNSCORED)
        if unscored:
            text.append(f"{unscored} row(s) could not be scored")
        return text

    def write(self, path: Path) -> None:
        """Write the counts as JSON; raises DataError where the file cannot be written."""
        try:
            path.write_text(json.dumps(vars(self), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{path} cannot be written: {error.strerror}; give a path in a folder that exists"
            ) from error


def verify_file(request: VerifyRequest, *, workers: int = 2, timeout_s: float = 5.0) -> VerifyReport:
    """Judge every row in worker processes; raises DataError or VerifierError before the first row is judged."""
    verifier = make_verifier(request.verifier, request.options)
    rows = list(_rows(request))
    if not rows:
        raise DataError(f"{request.file} has no rows; give a file with one JSON object a line")
    started = time.perf_counter()
    with VerifierPool(verifier, workers=workers, timeout_s=timeout_s) as pool:
        verdicts = _judge(pool, rows)
    return _report(rows, verdicts, time.perf_counter() - started, labelled=request.label is not None)


def make_verifier(name: str, options: Sequence[str] = ()) -> Verifier:
    """A verifier by name or import path, with options such as "extraction=lenient"."""
    try:
        factory = VERIFIER_CLASSES[name] if name in VERIFIER_CLASSES or ":" not in name else import_object(name)
    except KeyError as error:
        known = ", ".join(VERIFIER_CLASSES)
        remedy = did_you_mean(name, VERIFIER_CLASSES, "check the name")
        raise DataError(f"--verifier is {name!r}, expected {known} or package.module:Class; {remedy}") from error
    except RefusedError as error:
        raise DataError(f"--verifier {error.found}; {error.remedy}") from error
    arguments = dict(_option(text) for text in options)
    try:
        made: object = factory(**arguments)
    except TypeError as error:
        takes = ", ".join(inspect.signature(factory).parameters) or "no options"
        raise DataError(f"--set: {name} refuses {', '.join(arguments)} ({error}); it takes {takes}") from error
    if not isinstance(made, Verifier):
        raise DataError(f"--verifier {name} makes a {type(made).__name__} without check(response, reference)")
    return made


@dataclass(frozen=True)
class _Row:
    response: str
    reference: str
    label: bool | None


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise DataError(f"--set is {text!r}; expected option=value, such as extraction=lenient")
    return key, parse_scalar(value)


def _rows(request: VerifyRequest) -> Iterator[_Row]:
    try:
        with request.file.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _row(line, request, f"{request.file} line {number}")
    except UnicodeDecodeError as error:
        raise DataError(f"{request.file} is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{request.file} cannot be read: {error.strerror}; give a JSONL file") from error


def _row(line: str, request: VerifyRequest, place: str) -> _Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is not JSON ({error}); give one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{place} is no object; give one object a line")
    wanted = [request.response, request.reference, *([request.label] if request.label is not None else [])]
    for column in wanted:
        if column not in row:
            remedy = did_you_mean(column, list(row), "name a column with --response, --reference or --label")
            raise DataError(f"{place} has no {column!r}, only {', '.join(row)}; {remedy}")
    label = None if request.label is None else _label(row[request.label], request.label, place)
    return _Row(_response(row[request.response], request.response, place), _text(row[request.reference]), label)


def _response(value: Any, column: str, place: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return completion_text(value)
    except (RLToolkitError, TypeError, KeyError, IndexError) as error:
        raise DataError(f"{place}: {column} is {type(value).__name__}, expected a text or chat messages") from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _label(value: Any, column: str, place: str) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise DataError(f"{place}: {column} is {value!r}, expected true, false, 0 or 1")


def _judge(pool: VerifierPool, rows: Sequence[_Row]) -> list[Verdict]:
    """All verdicts in order, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    verdicts: list[Verdict] = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("judging", total=len(rows))
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            verdicts += pool.check_many([row.response for row in part], [row.reference for row in part])
            bars.update(bar, completed=len(verdicts))
    return verdicts


def _report(rows: Sequence[_Row], verdicts: Sequence[Verdict], seconds: float, *, labelled: bool) -> VerifyReport:
    counted = Counter(verdict.outcome for verdict in verdicts)
    outcomes = {outcome.value: counted[outcome] for outcome in Outcome}
    if not labelled:
        return VerifyReport(len(rows), outcomes, None, None, None, seconds)
    pairs = Counter(
        (verdict.outcome is Outcome.CORRECT, row.label) for row, verdict in zip(rows, verdicts, strict=True)
    )
    agree = pairs[True, True] + pairs[False, False]
    return VerifyReport(len(rows), outcomes, agree, pairs[True, False], pairs[False, True], seconds)
