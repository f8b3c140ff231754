"""Questions with named fields, checked when they are given and not when they are asked."""

from __future__ import annotations

from string import Formatter

from reward_models.errors import VerifierError


def checked_question(question: str, fields: set[str]) -> str:
    """Return the question if it has exactly these fields in braces.

    Raises:
        VerifierError: a field is missing or unknown, or a brace is not closed.
    """
    try:
        found = {name for _, name, _, _ in Formatter().parse(question) if name is not None}
    except ValueError as error:
        raise VerifierError(f"the question {question!r} cannot be read: {error}; write a brace itself twice") from error
    if found != fields:
        raise VerifierError(
            f"the question has the fields {sorted(found)}; expected {sorted(fields)}, each in braces; "
            "write a brace itself twice"
        )
    return question
