r"""Sets of real numbers: intervals, unions, inequalities and finite sets in one form, so that each equals the other.

`x < 3`, `(-\infty, 3)`, `x \in (-\infty, 3)` and `\{x \mid x < 3\}` are one set; `x \ne 3` is
`(-\infty,3) \cup (3,\infty)`. Two sets with named variables are equal only if the names are. A set must have numbers as
its ends; `(a, b)` with letters is compared as a structure.
"""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any, NamedTuple

from reward_models.answers.structures import (
    Combined,
    Named,
    Relation,
    Scalar,
    Sequence,
    Several,
    Shape,
    as_name,
    is_membership,
    is_simple_name,
    read_or_none,
)
from reward_models.answers.values import real_number
from reward_models.answers.words import means_set

MAX_PIECES = 60
_INFINITE = {"\\infty": 1, "+\\infty": 1, "-\\infty": -1, "+ \\infty": 1, "- \\infty": -1, "infinity": 1,
             "-infinity": -1, "inf": 1, "-inf": -1, "oo": 1, "-oo": -1}  # fmt: skip
_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "≠": "≠", "=": "="}
_TOLERANCE = 10**-50


class End(NamedTuple):
    """An end of an interval; `infinite` is -1 or 1 where it has none."""

    value: Any
    infinite: int = 0


class Piece(NamedTuple):
    """An interval; a point is one with equal closed ends."""

    low: End
    low_closed: bool
    high: End
    high_closed: bool


class RealSet(NamedTuple):
    """Disjoint pieces in order; `name` is their variable or "", `sure` says that it can be nothing but a set."""

    pieces: tuple[Piece, ...]
    name: str
    sure: bool


_BELOW, _ABOVE = End(0, -1), End(0, 1)
_ALL: tuple[Piece, ...] = (Piece(_BELOW, False, _ABOVE, False),)


class TooManyPiecesError(ValueError):
    """A set has more pieces than are worth comparing."""


def as_real_set(shape: Shape) -> RealSet | None:
    """The set of real numbers that an answer is or can be read as, or None."""
    try:
        return _real_set(shape)
    except TooManyPiecesError:
        return None


def _real_set(shape: Shape) -> RealSet | None:
    if isinstance(shape, Scalar):
        return _constant(shape.text)
    if isinstance(shape, Sequence):
        return _bracketed(shape)
    if isinstance(shape, Relation):
        return _relation(shape)
    if isinstance(shape, Named):
        inner = _real_set(shape.value)
        if inner is None or (inner.name and inner.name != shape.name):
            return None
        return inner._replace(name=shape.name, sure=inner.sure or is_membership(shape))
    if isinstance(shape, Combined):
        return _combined(shape)
    if isinstance(shape, Several) and all(_is_condition(item) for item in shape.items):
        return _conditions(shape)
    return None


def _is_condition(shape: Shape) -> bool:
    if isinstance(shape, Several):
        return all(_is_condition(item) for item in shape.items)
    return isinstance(shape, Relation) or (isinstance(shape, Named) and is_membership(shape))


def same_real_set(first: RealSet, second: RealSet) -> bool:
    """Compare pieces, ends and variables."""
    if first.name and second.name and first.name != second.name:
        return False
    return len(first.pieces) == len(second.pieces) and all(
        _order(one.low, two.low) == 0
        and _order(one.high, two.high) == 0
        and (one.low_closed, one.high_closed) == (two.low_closed, two.high_closed)
        for one, two in zip(first.pieces, second.pieces, strict=True)
    )


def _constant(text: str) -> RealSet | None:
    text = means_set(text) or text.strip()
    if text == "\\mathbb{R}":
        return RealSet(_ALL, "", True)
    return RealSet((), "", True) if text == "\\emptyset" else None


def _bracketed(shape: Sequence) -> RealSet | None:
    if (shape.opening, shape.closing) == ("\\{", "\\}"):
        ends = [_end(item) for item in shape.items]
        if any(end is None or end.infinite for end in ends):
            return None
        return RealSet(_tidy([Piece(end, True, end, True) for end in ends if end is not None]), "", not shape.items)
    if len(shape.items) != 2 or shape.opening not in {"(", "["} or shape.closing not in {")", "]"}:
        return None
    low, high = _end(shape.items[0]), _end(shape.items[1])
    if low is None or high is None:
        return None
    low_closed, high_closed = shape.opening == "[", shape.closing == "]"
    order = _order(low, high)
    if order > 0 or (order == 0 and not (low_closed and high_closed)):
        return None
    low_closed, high_closed = low_closed and not low.infinite, high_closed and not high.infinite
    sure = low_closed != high_closed or order == 0 or bool(low.infinite or high.infinite)
    return RealSet((Piece(low, low_closed, high, high_closed),), "", sure)


def _end(shape: Shape) -> End | None:
    if not isinstance(shape, Scalar):
        return None
    return _end_of(shape.text)


def _end_of(text: str) -> End | None:
    text = text.strip()
    if text in _INFINITE:
        return End(0, _INFINITE[text])
    node = read_or_none(text)
    value = None if node is None else real_number(node)
    return None if value is None else End(value)


def _relation(relation: Relation) -> RealSet | None:
    """An inequality that is solved for its variable."""
    if not set(relation.signs) <= set(_FLIPPED):
        return None
    names = [index for index, member in enumerate(relation.members) if is_simple_name(member)]
    if len(names) != 1:
        return None
    pieces = _ALL
    at = names[0]
    if len(relation.members) > 3 or (len(relation.members) == 3 and at != 1):
        return None
    for index, sign in enumerate(relation.signs):
        end = _end_of(relation.members[index if index < at else index + 1])
        if end is None:
            return None
        pieces = _intersection(pieces, _half_line(_FLIPPED[sign] if index < at else sign, end))
    return RealSet(pieces, as_name(relation.members[at]), True)


def _half_line(sign: str, end: End) -> tuple[Piece, ...]:
    if sign == "=":
        return (Piece(end, True, end, True),)
    below, above = Piece(_BELOW, False, end, sign == "≤"), Piece(end, sign == "≥", _ABOVE, False)
    if sign == "≠":
        return (below, above)
    return (below,) if sign in {"<", "≤"} else (above,)


def _conditions(shape: Several) -> RealSet | None:
    """`x < 1 or x > 3` is a union, `x > 1, x \\ne 2` an intersection; a comma between disjoint sets joins them."""
    sets = [_real_set(item) for item in shape.items]
    known = [one for one in sets if one is not None]
    if len(known) != len(sets) or len({one.name for one in known}) != 1:
        return None
    pieces = known[0].pieces
    for one in known[1:]:
        common = _intersection(pieces, one.pieces)
        joins = shape.joint == "or" or (shape.joint == "," and not common)
        pieces = _tidy([*pieces, *one.pieces]) if joins else common
    return RealSet(pieces, known[0].name, True)


def _combined(shape: Combined) -> RealSet | None:
    sets = [_real_set(part) for part in shape.parts]
    known = [one for one in sets if one is not None]
    if len(known) != len(sets):
        return None
    pieces = known[0].pieces
    for sign, one in zip(shape.signs, known[1:], strict=True):
        if sign == "\\cup":
            pieces = _tidy([*pieces, *one.pieces])
        else:
            pieces = _intersection(pieces, one.pieces if sign == "\\cap" else _complement(one.pieces))
    return RealSet(pieces, known[0].name, True)


def _order(first: End, second: End) -> int:
    if first.infinite or second.infinite:
        return (first.infinite > second.infinite) - (first.infinite < second.infinite)
    difference = first.value - second.value
    if abs(difference) <= _TOLERANCE * max(abs(first.value), abs(second.value)):
        return 0
    return 1 if difference > 0 else -1


def _tidy(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Put pieces in order and join those that touch."""
    if len(pieces) > MAX_PIECES:
        raise TooManyPiecesError
    merged: list[Piece] = []
    for piece in sorted(pieces, key=cmp_to_key(_starts_before)):
        if merged and _touches(merged[-1], piece):
            merged[-1] = _joined(merged[-1], piece)
        else:
            merged.append(piece)
    return tuple(merged)


def _starts_before(first: Piece, second: Piece) -> int:
    return _order(first.low, second.low) or second.low_closed - first.low_closed


def _touches(first: Piece, second: Piece) -> bool:
    order = _order(second.low, first.high)
    return order < 0 or (order == 0 and (second.low_closed or first.high_closed) and not first.high.infinite)


def _joined(first: Piece, second: Piece) -> Piece:
    order = _order(first.high, second.high)
    if order == 0:
        return first._replace(high_closed=first.high_closed or second.high_closed)
    return first if order > 0 else first._replace(high=second.high, high_closed=second.high_closed)


def _intersection(first: tuple[Piece, ...], second: tuple[Piece, ...]) -> tuple[Piece, ...]:
    found = []
    for one in first:
        for two in second:
            low = one if _starts_before(one, two) >= 0 else two
            order = _order(one.high, two.high)
            high = one if order < 0 or (order == 0 and not one.high_closed) else two
            width = _order(low.low, high.high)
            if width < 0 or (width == 0 and low.low_closed and high.high_closed):
                found.append(Piece(low.low, low.low_closed, high.high, high.high_closed))
    return _tidy(found)


def _complement(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    result = _ALL
    for piece in pieces:
        outside = []
        if not piece.low.infinite:
            outside.append(Piece(_BELOW, False, piece.low, not piece.low_closed))
        if not piece.high.infinite:
            outside.append(Piece(piece.high, not piece.high_closed, _ABOVE, False))
        result = _intersection(result, tuple(outside))
    return result
