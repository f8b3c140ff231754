"""Templates and references over the columns of a dataset, with every fault of the data named by row.

Rows are counted from 1 in messages.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rltoolkit.errors import DataError
from rltoolkit.recipe.problems import RefusedError, did_you_mean
from rltoolkit.recipe.schema import template_fields

if TYPE_CHECKING:
    from datasets import Dataset

ROWS_SHOWN = 3


class ReferenceSpec(Protocol):
    """Where the gold answer stands."""

    @property
    def column(self) -> str:
        """The column that holds it."""

    @property
    def pattern(self) -> str | None:
        """A regular expression with one group around the answer, of which the last match counts; None takes all."""


def require_columns(rows: "Dataset", wanted: Sequence[tuple[str, str]]) -> None:
    """Check that every (recipe key, column) of `wanted` is there; DataError lists all that are not."""
    found = list(rows.column_names)
    missing = [(key, column) for key, column in wanted if column not in found]
    if missing:
        lines = [
            f"{key} names column {column!r}: {did_you_mean(column, found, 'no such column')}" for key, column in missing
        ]
        raise DataError("\n".join([*lines, f"The data has the columns: {', '.join(found)}"]))


def render(rows: "Dataset", template: str, key: str) -> list[str]:
    """Fill `template` with each row's columns; DataError if a column of it is empty somewhere.

    Values are inserted as they are: braces in the data mean nothing.
    """
    try:
        names = template_fields(template)
    except RefusedError as error:
        raise DataError(f"{key} {error.found}; {error.remedy}") from error
    require_columns(rows, [(key, name) for name in names])
    columns = {name: rows[name][:] for name in names}
    for name, values in columns.items():
        _refuse(
            [index for index, value in enumerate(values) if is_empty(value)],
            len(values),
            f"column {name!r} is empty",
            key,
        )
    return [template.format_map({name: columns[name][index] for name in names}) for index in range(len(rows))]


def references(rows: "Dataset", spec: ReferenceSpec, key: str) -> list[str]:
    """Return each row's gold answer as text; DataError counts the rows that have none and names the first."""
    require_columns(rows, [(key, spec.column)])
    values = rows[spec.column][:]
    total = len(values)
    empty = [index for index, value in enumerate(values) if is_empty(value)]
    _refuse(empty, total, f"column {spec.column!r} has no answer", key)
    texts = [str(value).strip() for value in values]
    if spec.pattern is None:
        return texts
    found = [_last_match(spec.pattern, text) for text in texts]
    unmatched = [index for index, answer in enumerate(found) if not answer]
    _refuse(unmatched, total, f"pattern {spec.pattern!r} finds no answer in column {spec.column!r}", key)
    return [answer for answer in found if answer]


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN or blank text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def listed(indices: Sequence[int]) -> str:
    """Name the first rows of `indices` (counted from 0) as people count: "rows 1, 5, 9 and 4 more"."""
    shown = ", ".join(str(index + 1) for index in indices[:ROWS_SHOWN])
    more = f" and {len(indices) - ROWS_SHOWN} more" if len(indices) > ROWS_SHOWN else ""
    return f"row{'s' if len(indices) > 1 else ''} {shown}{more}"


def first_line(error: Exception) -> str:
    """Return the first line of another library's message; what follows is advice for its own users."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _last_match(pattern: str, text: str) -> str | None:
    matches = list(re.finditer(pattern, text))
    answer = matches[-1].group(1) if matches else None
    return answer.strip() if answer else None


def _refuse(indices: Sequence[int], total: int, fault: str, key: str) -> None:
    if indices:
        where = f"in {len(indices)} of {total} rows ({listed(indices)})"
        raise DataError(f"{key}: {fault} {where}; fill or remove these rows")
