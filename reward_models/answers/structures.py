r"""Take an answer apart at its top level: lists, tuples, sets, unions, matrices, relations, named values.

The reader counts brackets, of whatever kind, so that half-open intervals are whole. Policies:

- A list without brackets (`1, -2`; `x=1 or x=-2`; "and"; `3 \pm \sqrt2` is both values) has no order. A tuple has one;
  brackets belong to it, so that `(1,2)`, `[1,2]` and `\{1,2\}` differ. A bracket around one thing is no structure.
- A comma between groups of three digits parts thousands where it is the only kind (`1,234` is a number) or another
  comma of the list is followed by a space (`1,000, 2,000`). `_same_collections` in `compare` tries the list as well.
- `x = 5` is a named value; so is `a+b = 5`, a name made of letters alone (the problem asks for a+b), unless the value
  is 0, which makes it an equation. It equals the value whichever side is the reference. `x=1, -2` names both values. A
  chain of equalities has a value only if what follows its name is equal throughout: `x = 2+3 = 5` is 5, `y = 2x+5 = 5`
  is a statement.
- What stands before an approximation sign is the value, what follows is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from reward_models.answers.expressions import Node, UnreadableError, read_expression, variables
from reward_models.answers.units import split_unit
from reward_models.answers.values import same_value

# A list of more alternatives is no final answer.
MAX_SIGNS = 4

_STEP = re.compile(
    r"(?P<joint>\\text\s*\{\s*,?\s*(?P<joined>and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?P<joined1>and|or)(?![A-Za-z]))"
    r"|(?P<skip>\\text\s*\{[^{}]*\})|(?P<command>\\[A-Za-z]+|\\.)|(?P<sign><=|>=|!=|:=|.)",
    re.DOTALL,
)
_OPENING = frozenset({"(", "[", "{", "\\{", "\\langle", "\\begin", "\\lfloor", "\\lceil"})
_CLOSING = frozenset({")", "]", "}", "\\}", "\\rangle", "\\end", "\\rfloor", "\\rceil"})
_RELATIONS = {
    "=": "=", ":=": "=", "\\equiv": "≡", "\\approx": "≈", "\\simeq": "≈", "<": "<", ">": ">", "\\le": "≤", "<=": "≤",
    "\\ge": "≥", ">=": "≥", "\\ne": "≠", "!=": "≠", "\\in": "∈", "\\to": "→", "\\sim": "~", "\\cong": "≅",
}  # fmt: skip
_SET_SIGNS = frozenset({"\\cup", "\\cap", "\\setminus"})
_MATRIX = re.compile(
    r"(?P<before>[^&]*?)\\begin\s*\{(?P<kind>[pbBvV]?matrix|smallmatrix|array)\}\s*(?:\{[lcr|@{}\s]*\})?(?P<body>.*)"
    r"\\end\s*\{(?P=kind)\}\s*",
    re.DOTALL,
)
_TIGHT_THOUSANDS = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_SIGN_CHOICE = re.compile(r"\\(pm|mp)(?![a-zA-Z])|\+/-|\+-")
_NAME_WITHOUT_DIGITS = re.compile(r"_\s*(?:\{[^{}]*\}|[0-9A-Za-z])|\^\s*\{?\s*-\s*1\s*\}?")
# `f(2) = 8` names a value of a function, `x(2) = 8` multiplies.
_AT_A_NUMBER = re.compile(r"(?<![A-Za-z\\])[fghpqFGHPQ]\s*\(\s*-?[0-9]+\s*\)")
_SIMPLE_NAME = re.compile(
    r"(?:\\[A-Za-z]+|[A-Za-z])(?:_(?:\{[^{}]*\}|[0-9A-Za-z]))?'*(?:(?:\^\{?-1\}?)?\s*\([A-Za-z](?:,\s*[A-Za-z])*\))?"
)
_WORD_NAME = re.compile(r"(?:\\text\s*\{[^{}]*\}|[A-Za-z]{4,}+|\s++)++")  # possessive, or it could try for ever
_SEGMENT_NAME = re.compile(
    r"(?:m\s*)?(?:\\(?:angle|triangle|overline|measuredangle)\s*)?\|?\{?\s*[A-Z]{1,4}\s*\}?\|?|\\frac\s*\{d[a-z]\}\s*\{d[a-z]\}"
)


# What binds less comes first: `a=1, b=2 or a=2, b=1` are two pairs.
_SEPARATORS = (frozenset({";"}), frozenset({"or"}), frozenset({",", "and"}))
_SYSTEM = re.compile(r"\\begin\s*\{(cases|aligned|align\*?|gathered)\}(?P<body>.*)\\end\s*\{\1\}")


@dataclass(frozen=True, slots=True)
class Scalar:
    """What has no parts."""

    text: str


@dataclass(frozen=True, slots=True)
class Several:
    """Values in any order; `joint` is "and", "or", "," or "±"."""

    items: tuple[Shape, ...]
    joint: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """Things in brackets: a tuple, a list, a set, or an interval; with colons for brackets a ratio of several."""

    opening: str
    closing: str
    items: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of cells; determinants (`vmatrix`) are a kind of their own."""

    kind: str
    rows: tuple[tuple[Shape, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """Members with the signs between them."""

    members: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A value with its name, "" for a name in words; `equation` is the statement, if it is a single one."""

    name: str
    value: Shape
    equation: Relation | None


@dataclass(frozen=True, slots=True)
class Combined:
    """Sets joined by `\\cup`, `\\cap` or `\\setminus`, from left to right."""

    parts: tuple[Shape, ...]
    signs: tuple[str, ...]


Shape = Scalar | Several | Sequence | Matrix | Relation | Named | Combined


def read_shape(text: str, *, bare: bool = True) -> Shape:
    """Take a normalised answer apart; `bare` if no bracket is around it."""
    text = text.strip()
    text = _system(text)
    for separators in _SEPARATORS:
        parts, signs = split_top(text, separators, bare=bare)
        parts, signs = _without_empty(parts, signs)
        if len(parts) > 1:
            return _several(parts, signs)
        text = parts[0] if parts else text
    members, signs = split_top(text, frozenset(_RELATIONS))
    if signs and all(members):
        return _relation(Relation(tuple(members), tuple(_RELATIONS[sign] for sign in signs)))
    members, signs = split_top(text, _SET_SIGNS)
    if signs and all(members):
        return Combined(tuple(read_shape(member, bare=False) for member in members), tuple(signs))
    ratio, _ = split_top(text, frozenset({":"}))
    if len(ratio) > 2 and all(ratio):
        return Sequence(":", ":", tuple(Scalar(part) for part in ratio))
    return _matrix(text) or _bracketed(text) or _scalar(text)


def _system(text: str) -> str:
    """The lines of a system of equations as a list."""
    found = _SYSTEM.fullmatch(text)
    if found is None or ("&" in found["body"] and not found[1].startswith("align")):
        return text
    lines = found["body"].replace("&", "").split("\\\\")
    return ", ".join(line.strip().rstrip(",") for line in lines if line.strip())


def split_top(text: str, separators: frozenset[str], *, bare: bool = False) -> tuple[list[str], list[str]]:
    """Split at separators outside all brackets; return the parts and the separators between them."""
    thousands = _thousands_commas(text, bare=bare) if "," in separators else frozenset()
    parts, signs, start, depth = [], [], 0, 0
    for step in _STEP.finditer(text):
        sign = step["joined"] or step["joined1"] or step[0]
        if sign in _OPENING:
            depth += 1
        elif sign in _CLOSING:
            depth -= 1
        elif depth == 0 and sign in separators and step.start() not in thousands:
            parts.append(text[start : step.start()].strip())
            signs.append(sign)
            start = step.end()
    parts.append(text[start:].strip())
    if thousands and len(parts) > 1:
        parts = [_TIGHT_THOUSANDS.sub(lambda found: found[0].replace(",", ""), part) for part in parts]
    return parts, signs


def is_simple_name(text: str) -> bool:
    """True for one variable, possibly with subscript, or a function of variables: `x`, `a_1`, `f(x)`."""
    return bool(_SIMPLE_NAME.fullmatch(text)) and text not in {"i", "e", "\\pi", "\\infty", "\\emptyset"}


def as_name(text: str) -> str:
    """One spelling for a name."""
    return re.sub(r"[\s{}]|\\text", "", text)


def read_or_none(text: str) -> Node | None:
    """The expression that a text is, or None."""
    try:
        return read_expression(text)
    except UnreadableError:
        return None


def _thousands_commas(text: str, *, bare: bool) -> frozenset[int]:
    found = list(_TIGHT_THOUSANDS.finditer(text))
    if not found:
        return frozenset()
    inside = {at for match in found for at in range(match.start(), match.end()) if text[at] == ","}
    others = [at for at, character in enumerate(text) if character == "," and at not in inside]
    spaced = any(text[at + 1 : at + 2].isspace() for at in others)
    return frozenset(inside) if spaced or (bare and not others) else frozenset()


def _without_empty(parts: list[str], signs: list[str]) -> tuple[list[str], list[str]]:
    """Drop the empty part in `1, 2, and 3`; the later of two separators counts."""
    kept: list[str] = []
    between: list[str] = []
    for index, part in enumerate(parts):
        if part:
            if kept:
                between.append(signs[index - 1])
            kept.append(part)
    return kept, between


def is_membership(shape: Named) -> bool:
    """True for `x \\in S`."""
    return shape.equation is not None and shape.equation.signs == ("∈",)


def _several(parts: list[str], signs: list[str]) -> Shape:
    items = tuple(read_shape(part, bare=False) for part in parts)
    items = _flattened(items)
    joint = next((sign for sign in signs if sign in {"and", "or"}), ",")
    first = items[0]
    if (
        isinstance(first, Named)
        and not is_membership(first)
        and all(_continues(first.name, item) for item in items[1:])
    ):
        values = tuple(item.value if isinstance(item, Named) else item for item in items)
        return Named(first.name, Several(values, joint), None)
    return Several(items, joint)


def _flattened(items: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """`1, \\pm 2` and `1, 2 or 3` are three values; `a=1, b=2 or a=2, b=1` are two pairs."""
    flat: list[Shape] = []
    for item in items:
        if isinstance(item, Several) and not _are_different_things(item):
            flat.extend(item.items)
        elif isinstance(item, Named) and isinstance(item.value, Several):
            flat.extend(Named(item.name, value, None) for value in item.value.items)
        else:
            flat.append(item)
    return tuple(flat)


def _are_different_things(shape: Several) -> bool:
    names = [item.name for item in shape.items if isinstance(item, Named)]
    return len(set(names)) > 1 or any(isinstance(item, Relation) for item in shape.items)


def _continues(name: str, item: Shape) -> bool:
    if isinstance(item, Named):
        return item.name == name and not is_membership(item)
    return isinstance(item, (Scalar, Sequence))


def _relation(relation: Relation) -> Shape:
    signs = set(relation.signs)
    if signs <= {"=", "≈"}:
        return _named(relation) or relation
    if relation.signs == ("∈",) and is_simple_name(relation.members[0]):
        return Named(as_name(relation.members[0]), read_shape(relation.members[1], bare=False), relation)
    return relation


def _named(relation: Relation) -> Shape | None:
    """The value that a chain of equalities gives to its name, or that a chain of numbers has."""
    exact = [member for member, sign in zip(relation.members, ("=", *relation.signs), strict=True) if sign == "="]
    first, last = exact[0], exact[-1]
    if len(exact) == 1:
        return (
            Named(as_name(first), read_shape(relation.members[1], bare=True), relation)
            if is_simple_name(first)
            else read_shape(first)
        )
    if is_simple_name(last) and not is_simple_name(first) and len(exact) == 2 and _name(first, "1") is None:
        first, last = last, first
        exact = [first, last]
    name = _name(first, last)
    values = exact if name is None else exact[1:]
    if name is None and not all(_is_closed(value) for value in values):
        return None
    if not all(_equal_texts(value, last) for value in values[:-1]):
        return None
    return Named(name or "", read_shape(last, bare=True), relation)


def _name(text: str, value: str) -> str | None:
    """The name that the left side of an equation is, or None if it is an expression."""
    if is_simple_name(text) or _SEGMENT_NAME.fullmatch(text):
        return as_name(text)
    if _WORD_NAME.fullmatch(text):
        return ""
    tuple_of_names = _bracketed(text)
    if isinstance(tuple_of_names, Sequence):
        names = [item.text for item in tuple_of_names.items if isinstance(item, Scalar) and is_simple_name(item.text)]
        return ",".join(map(as_name, names)) if len(names) == len(tuple_of_names.items) else None
    without = _NAME_WITHOUT_DIGITS.sub("", _AT_A_NUMBER.sub("f", text))
    if any(character.isdigit() for character in without):
        return None
    node, given = read_or_none(text), read_or_none(value)
    if node is not None and variables(node) and given is not None and not variables(given) and given.value != 0:
        return as_name(text)
    return None


def _is_closed(text: str) -> bool:
    node = _without_unit(text)
    return node is not None and not variables(node)


def _without_unit(text: str) -> Node | None:
    return read_or_none(split_unit(text).amount.replace("\\$", ""))


def _equal_texts(first: str, second: str) -> bool:
    one, two = _without_unit(first), _without_unit(second)
    return one is not None and two is not None and same_value(one, two)


def _matrix(text: str) -> Shape | None:
    found = _MATRIX.fullmatch(text)
    if found is None or "\\begin" in found["body"]:
        return None
    before = found["before"].strip().removesuffix("(").removesuffix("[").strip()
    factor = f"({before})" if before and before != "-" else before
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", found["body"].replace("\\hline", "")) if row.strip()]
    cells = tuple(tuple(_scaled(factor, cell.strip()) for cell in row.split("&")) for row in rows)
    return Matrix("v" if found["kind"][0] in "vV" else "p", cells)


def _scaled(factor: str, cell: str) -> Shape:
    return read_shape(f"{factor}({cell})" if factor else cell, bare=True)


def _bracketed(text: str) -> Shape | None:
    """What stands in one pair of brackets around the whole text."""
    steps = list(_STEP.finditer(text))
    if len(steps) < 2 or steps[0][0] not in _OPENING - {"\\begin", "\\lfloor", "\\lceil"}:
        return None
    depth = 0
    for step in steps:
        depth += (step[0] in _OPENING) - (step[0] in _CLOSING)
        if depth == 0:
            break
    if step.end() != len(text) or depth:
        return None
    opening, closing = steps[0][0], steps[-1][0]
    inner = text[steps[0].end() : steps[-1].start()].strip()
    if (opening, closing) == ("{", "}"):
        if len(split_top(inner, frozenset({","}))[0]) < 2:
            return None
        opening, closing = "\\{", "\\}"  # a set in plain text
    return _inside(opening, closing, inner)


def _inside(opening: str, closing: str, inner: str) -> Shape | None:
    described, _ = split_top(inner, frozenset({"|", ":"})) if opening == "\\{" else ([], [])
    if len(described) == 2 and is_simple_name(described[0].split("\\in")[0].strip()):
        condition = read_shape(described[1])
        if isinstance(condition, (Relation, Several)):
            return condition
    parts, _ = split_top(inner, frozenset({",", ";"}))
    if opening == "\\langle" and closing == "\\rangle":
        opening, closing = "(", ")"
    if len(parts) == 1 and (opening, closing) in {("(", ")"), ("[", "]")}:
        return read_shape(inner, bare=True) if inner else None
    if not inner:
        return Sequence(opening, closing, ())
    items = tuple(read_shape(part, bare=False) for part in parts)
    if opening == "\\{":
        return Sequence(opening, closing, _flattened(items))
    alternatives = _choices(inner)
    if alternatives:
        return Several(tuple(read_shape(f"{opening}{one}{closing}") for one in alternatives), "±")
    return Sequence(opening, closing, items)


def _scalar(text: str) -> Shape:
    """A value, or the values that plus-minus signs stand for."""
    alternatives = _choices(text)
    return Several(tuple(Scalar(one) for one in alternatives), "±") if alternatives else Scalar(text)


def _choices(text: str) -> list[str]:
    r"""The texts that the plus-minus signs of a text stand for; `\mp` goes against all `\pm`."""
    signs = _SIGN_CHOICE.findall(text)
    if not signs or len(signs) > MAX_SIGNS:
        return []
    if "mp" in signs:
        return [_with_signs(text, (sign,) * len(signs)) for sign in "+-"]
    return [_with_signs(text, signs_taken) for signs_taken in product("+-", repeat=len(signs))]


def _with_signs(text: str, choice: tuple[str, ...]) -> str:
    remaining = iter(choice)
    opposite = {"+": "-", "-": "+"}

    def sign(found: re.Match[str]) -> str:
        chosen = next(remaining)
        return opposite[chosen] if found[1] == "mp" else chosen

    return _SIGN_CHOICE.sub(sign, text)
