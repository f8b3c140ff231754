"""`metrics.jsonl`: one JSON line per logged step, readable while the run goes on and after it died."""

import json
import math
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rltoolkit.run.atomic import write_text

Value = float | int | str | None


class MetricsWriter:
    """Appends lines `{"phase", "step", "time", **numbers}`; `time` is in seconds since the epoch.

    A last line that a dying process left half written is removed first, so that the next one starts on its
    own line. Give `is_main=False` on all processes but one: then nothing is written.
    """

    def __init__(self, path: Path, *, is_main: bool = True) -> None:
        self.path = path
        self.is_main = is_main
        if is_main and path.exists():
            _drop_torn_end(path)

    def write(self, phase: str, step: int, values: Mapping[str, Value]) -> None:
        """Append one line and flush it; NaN and infinity are written as null, they are no JSON."""
        if not self.is_main:
            return
        record = {"phase": phase, "step": step, "time": round(time.time(), 3)}
        record |= {key: _storable(value) for key, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")

    def drop_after(self, step: int, phases: Collection[str]) -> None:
        """Remove the lines of these phases beyond `step`; a run that resumes at `step` writes them again."""
        if not self.is_main or not self.path.exists():
            return
        records = read_metrics(self.path)
        kept = [record for record in records if record["phase"] not in phases or record["step"] <= step]
        if len(kept) < len(records):
            write_text(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file, oldest first; a last line without its end is left out.

    A missing file gives an empty list. Any other line that is no record raises ValueError with its number.
    """
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    records = []
    for number, line in enumerate(whole.decode("utf-8").split("\n"), start=1) if whole else ():
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path} line {number} is not JSON: {error}") from error
        if not isinstance(record, dict) or not {"phase", "step"} <= record.keys():
            raise ValueError(f"{path} line {number} is no record with phase and step: {line[:80]}")
        records.append(record)
    return records


def _storable(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_torn_end(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
