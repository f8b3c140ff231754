"""`rltoolkit verify`: judge the responses of a JSONL file, and compare with labels where there are some."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reward_models import VerifierPool
from reward_models.reward_func import reference_text, response_of
from reward_models.verdict import Verdict, Verifier
from rltoolkit.commands.verify_report import JudgedRow, VerifyReport, make_report
from rltoolkit.errors import DataError
from rltoolkit.recipe.option_findings import option_findings
from rltoolkit.recipe.plugin_options import VERIFIER_OPTIONS
from rltoolkit.recipe.plugins import NotMadeError, build_verifier
from rltoolkit.recipe.problems import RecipeProblem, did_you_mean
from rltoolkit.recipe.schema import IMPORT_PATH
from rltoolkit.recipe.yaml_source import parse_scalar

# Rows judged between two movements of the progress bar.
CHUNK = 128


@dataclass(frozen=True)
class VerifyRequest:
    """What to judge: a file, its columns, and a verifier with `option=value` texts."""

    file: Path
    verifier: str
    response: str
    reference: str
    label: str | None = None
    options: tuple[str, ...] = ()


def verify_file(request: VerifyRequest, *, workers: int = 2, timeout_s: float = 5.0) -> VerifyReport:
    """Judge every row in worker processes; raises DataError or VerifierError before the first row is judged."""
    verifier = make_verifier(request.verifier, request.options, [request.file.parent])
    rows = list(_rows(request))
    if not rows:
        raise DataError(f"{request.file} has no rows; give a file with one JSON object a line")
    with VerifierPool(verifier, workers=workers, timeout_s=timeout_s) as pool:
        started = time.perf_counter()
        verdicts = _judge(pool, rows)
        seconds = time.perf_counter() - started
    pairs = zip(rows, verdicts, strict=True)
    judged = [JudgedRow.of(row.line, row.reference, row.label, verdict) for row, verdict in pairs]
    return make_report(judged, seconds, labelled=request.label is not None)


def make_verifier(name: str, options: Sequence[str] = (), folders: Sequence[Path] = ()) -> Verifier:
    """A verifier by name or import path, with options such as "extraction=lenient"; raises DataError.

    `folders` are searched for modules beside the working directory.
    """
    if name not in VERIFIER_OPTIONS and not IMPORT_PATH.fullmatch(name):
        known = ", ".join(VERIFIER_OPTIONS)
        remedy = did_you_mean(name, VERIFIER_OPTIONS, "check the name")
        raise DataError(f"--verifier is {name!r}, expected {known} or package.module:Class; {remedy}")
    section = {"verifier": name, **dict(_option(text) for text in options)}
    findings = list(option_findings(section, (), "verifier", VERIFIER_OPTIONS))
    if findings:
        problems = [RecipeProblem("--set", one.key, one.found, one.expected, one.remedy) for one in findings]
        raise DataError("\n".join(str(problem) for problem in problems))
    try:
        return build_verifier(section, folders=folders)
    except NotMadeError as error:
        one = error.finding
        key = "--verifier" if one.key == "verifier" else f"--set {one.key}"
        raise DataError(str(RecipeProblem("the arguments", key, one.found, one.expected, one.remedy))) from error


@dataclass(frozen=True)
class _Row:
    """What a line holds; a response or a reference that is no text is for the pool to judge."""

    line: int
    response: Any
    reference: Any
    label: bool | None


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise DataError(f"--set is {text!r}; expected option=value, such as extraction=lenient")
    if key == "verifier":
        raise DataError(f"--set is {text!r}; name the verifier with --verifier {value}")
    if "#" in value and not value.startswith(("'", '"', "[", "{")):
        return key, value  # YAML would take it for a comment, which nobody writes into an argument
    try:
        return key, parse_scalar(value)
    except (yaml.YAMLError, ValueError) as error:
        remedy = f"put a text with signs in quotes of its own: --set '{key}=\"...\"'"
        reason = str(error).splitlines()[0]
        raise DataError(f"--set {key} is {value[:80]!r}, which is no YAML value ({reason}); {remedy}") from error


def _rows(request: VerifyRequest) -> Iterator[_Row]:
    try:
        with request.file.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _row(line, request, number)
    except OSError as error:
        raise DataError(f"{request.file} cannot be read: {error.strerror}; give a JSONL file") from error


def _row(line: bytes, request: VerifyRequest, number: int) -> _Row:
    place = f"{request.file} line {number}"
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_int=_integer)
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 text ({error}); save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON ({error}); give one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{place} is no object; give one object a line")
    wanted = [request.response, request.reference, *([request.label] if request.label is not None else [])]
    for column in wanted:
        if column not in row:
            remedy = did_you_mean(column, list(row), "name a column with --response, --reference or --label")
            raise DataError(f"{place} has no {column!r}, only {', '.join(row)}; {remedy}")
    label = None if request.label is None else _label(row[request.label], request.label, place)
    return _Row(number, response_of(row[request.response]), reference_text(row[request.reference]), label)


def _integer(digits: str) -> int | str:
    """An integer; one that Python refuses to read stays its digits, as which a reference is judged anyway."""
    try:
        return int(digits)
    except ValueError:
        return digits


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
