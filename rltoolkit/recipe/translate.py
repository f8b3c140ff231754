"""Pydantic's error details in the words of a recipe."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.known import section_class
from rltoolkit.recipe.problems import RefusedError, did_you_mean, suggestion
from rltoolkit.recipe.yaml_source import KeyPath

SAME_NAME = 0.8
"""Similarity from which a name is taken for one of another section."""

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a section (`key: value`)",
    "model_type": "a section (`key: value`)",
    "model_attributes_type": "a section (`key: value`)",
}
_BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}


def finding_of(detail: ErrorDetails | Mapping[str, Any], model: type[BaseModel], known: Sequence[str]) -> Finding:
    """One error of pydantic as a finding; `model` is the class at the root, `known` the keys to suggest."""
    path = tuple(str(part) for part in detail["loc"])
    key, kind, value = ".".join(path), detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return Finding(key, "unknown key", remedy=_remedy_for_unknown(key, known))
    help_text = _description(model, path)
    if kind == "missing":
        return Finding(key, "missing", remedy=f"give {help_text}" if help_text else "add it")
    context = detail.get("ctx") or {}
    cause = context.get("error")
    if isinstance(cause, RefusedError):
        return Finding(key, cause.found, cause.expected, cause.remedy)
    return Finding(key, f"is {_shown(value)}", _expected(detail["type"], context, detail["msg"]), help_text)


def _remedy_for_unknown(key: str, known: Sequence[str]) -> str:
    """The key that was meant: in its section, by the same name in another, or else all that its section has."""
    section, _, last = key.rpartition(".")
    beside = [one.rpartition(".")[2] for one in known if section and one.rpartition(".")[0] == section]
    if not beside:
        return did_you_mean(key, known, "remove it")
    if near := difflib.get_close_matches(last, beside, n=1):
        return suggestion(f"{section}.{near[0]}")
    elsewhere = {one.rpartition(".")[2]: one for one in reversed(known)}
    if near := difflib.get_close_matches(last, elsewhere, n=1, cutoff=SAME_NAME):
        return suggestion(elsewhere[near[0]])
    return f"remove it; {section} has {', '.join(beside)}"


def _expected(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind in _BOUNDS:
        sign, name = _BOUNDS[kind]
        return f"a value {sign} {context[name]:g}"
    if kind == "literal_error":
        return f"one of {context['expected']}".replace("'", "")
    return _TYPES.get(kind) or message


def _shown(value: Any) -> str:
    """The value as a recipe would write it, cut where it is long."""
    text = {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, bool | None) else None
    text = text or repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _description(model: type[BaseModel], path: KeyPath) -> str:
    """The help text of the field at a path, empty if there is none."""
    current: type[BaseModel] | None = model
    text = ""
    for part in path:
        field = current.model_fields.get(part) if current is not None else None
        if field is None:
            return ""
        text, current = field.description or "", section_class(field.annotation)
    return text
