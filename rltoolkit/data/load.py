"""Rows from a local file, the hub or an embedded world, as one `datasets.Dataset`.

Rows are counted from 1 in messages, as lines of a file are.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rltoolkit.data.columns import first_line
from rltoolkit.errors import DataError
from rltoolkit.recipe.paths import DATA_SUFFIXES, is_embedded, resolve_data_path
from rltoolkit.recipe.problems import RefusedError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Row = dict[str, Any]


class RowSource(Protocol):
    """Where rows come from; the data sections of a recipe have this form."""

    @property
    def path(self) -> str:
        """A .jsonl, .json, .parquet or .csv file, a hub name (`owner/name[:config]`) or an embedded world."""

    @property
    def split(self) -> str:
        """The split of a hub dataset or of an embedded world; a local file has none."""

    @property
    def limit(self) -> int | None:
        """Use only so many rows from the start; None uses all."""


def load_rows(source: RowSource, recipe_path: Path | str, *, seed: int = 0) -> "Dataset":
    """Read all rows of `source`; a relative path starts at the recipe's folder, then at the working directory.

    JSON and CSV keep numbers as they are written where a column mixes kinds, because references are
    compared as text: CSV columns are text, and so is a JSON column that holds both 7 and "1/2". `seed`
    matters to embedded worlds only. Raises DataError for a file that is missing, torn or empty, naming the
    line.
    """
    rows = _read(source, recipe_path, seed)
    if len(rows) == 0:
        raise DataError(f"{source.path} (split {source.split}) has no rows; give data with at least one row")
    if source.limit is not None and source.limit < len(rows):
        return rows.select(range(source.limit))
    return rows


def _read(source: RowSource, recipe_path: Path | str, seed: int) -> "Dataset":
    try:
        place = resolve_data_path(source.path, recipe_path)
    except RefusedError as error:
        raise DataError(f"data path {error.found}; {error.remedy}") from error
    if isinstance(place, str):
        return _embedded(place, source, seed) if is_embedded(place) else _from_hub(place, source.split)
    if place.is_dir():
        return _from_hub(str(place), source.split)
    if source.split != "train":
        raise DataError(f"split is {source.split!r}, but {place} is one file without splits; leave split out")
    return _from_file(place)


def _from_file(path: Path) -> "Dataset":
    from datasets import Dataset

    if path.suffix == ".parquet":
        return Dataset(_parquet_table(path))
    readers = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows}
    if path.suffix not in readers:
        expected = ", ".join(DATA_SUFFIXES)
        raise DataError(f"{path} ends in {path.suffix!r}, expected one of {expected}; convert or rename the file")
    try:
        return Dataset(_table(list(readers[path.suffix](path)), path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    """One object per line; blank lines are passed over, as many tools end a file with one."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _row(_parsed(line, f"{path} line {number}"), f"{path} line {number}")


def _json_rows(path: Path) -> Iterator[Row]:
    """A list of objects; a file that starts otherwise is read as JSON lines."""
    text = path.read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):
        yield from _jsonl_rows(path)
        return
    for number, item in enumerate(_parsed(text, str(path)), start=1):
        yield _row(item, f"{path} row {number}")


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{place} is not valid JSON ({error}): {text.strip()[:60]!r}; correct the file") from error


def _row(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{place} is {type(value).__name__}, expected an object with named columns")
    return value


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for cells in reader:
                if cells and len(cells) != len(header):
                    found, expected = len(cells), len(header)
                    raise DataError(f"{path} line {reader.line_num} has {found} cells, expected {expected}")
                if cells:
                    yield dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"{path} line {reader.line_num} is not valid CSV: {error}") from error


def _table(rows: Sequence[Row], path: Path) -> "pa.Table":
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(_as_written(values))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise DataError(f"column {name!r} of {path} mixes kinds of values: {error}") from error
    return pa.table(columns)


def _as_written(values: list[Any]) -> list[Any]:
    """Turn a column of numbers and text into text: Arrow would refuse it, or turn 7 into 7.0 beside 2.5."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and kinds <= {str, int, float, bool}:
        return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return values


def _parquet_table(path: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


def _embedded(name: str, source: RowSource, seed: int) -> "Dataset":
    from datasets import Dataset

    from rltoolkit.embedded.countdown import countdown_rows

    splits = ("train", "test")
    if name != "embedded:countdown" or source.split not in splits:
        found = f"{name} with split {source.split!r}"
        raise DataError(f"{found} is not known; expected embedded:countdown with split {' or '.join(splits)}")
    return Dataset.from_list(countdown_rows(source.split, source.limit, seed))  # type: ignore[arg-type]


def _from_hub(name: str, split: str) -> "Dataset":
    """A hub dataset, `owner/name` or `owner/name:config`, or a local folder that `load_dataset` understands."""
    from datasets import load_dataset

    repository, _, config = name.partition(":")
    try:
        return load_dataset(repository, config or None, split=split)
    except (OSError, ValueError) as error:
        remedy = "give a file here (./name.jsonl), or check the name, its config (owner/name:config) and the network"
        raise DataError(f"dataset {name}, split {split}, cannot be loaded: {first_line(error)}; {remedy}") from error
