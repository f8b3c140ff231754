"""What a JSON schema refers to: only parts of itself, and never in a circle that nothing in the answer ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reward_models.errors import VerifierError
from reward_models.json_text import MAX_JSON_DEPTH
from reward_models.stated_answer import shown

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_POINTERS = ("$ref", "$dynamicRef", "$recursiveRef")
# Keywords whose schemas look at the same value as the schema they stand in.
_SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")
_SAME_VALUE_BY_NAME = ("dependentSchemas", "dependencies")


def require_schema(schema: Any, kind: type[Validator]) -> None:
    """Raise VerifierError unless `schema` is one by the rules of its draft."""
    from jsonschema.exceptions import SchemaError

    try:
        kind.check_schema(schema)
    except SchemaError as error:
        reason = shown(error.message)
        raise VerifierError(f"JsonSchemaVerifier schema is no JSON schema at {error.json_path}: {reason}") from error


def require_inside(schema: dict[str, Any], kind: type[Validator]) -> None:
    """Raise VerifierError if a schema refers to anything that it does not hold itself, or to itself without end."""
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    top: Resource[Any] = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = Registry().with_resource(top.id() or "", top).resolver(top.id() or "")
    targets: dict[int, list[Any]] = {}
    parts = [top]
    for part in parts:  # grows by what is found
        contents = part.contents
        if id(contents) in targets or not isinstance(contents, dict):
            continue
        if contents is not schema and part.id() is not None:
            raise VerifierError(
                f"JsonSchemaVerifier schema has $id {str(part.id())[:80]!r} inside; keep it at the top or remove it"
            )
        targets[id(contents)] = [_target(resolver, key, text) for key, text in _pointers(contents)]
        parts += part.subresources()
        for target in targets[id(contents)]:
            if id(target) not in targets:
                require_schema(target, kind)  # a pointer may lead to what was data so far
                parts.append(Resource.from_contents(target, default_specification=DRAFT202012))
    try:
        known: dict[int, float] = {}
        levels = max(_levels(part.contents, targets, known) for part in parts)
    except RecursionError:
        levels = math.inf
    if levels > MAX_JSON_DEPTH:
        what = "refers to itself without end" if math.isinf(levels) else f"looks at one value on {levels:.0f} levels"
        raise VerifierError(
            f"JsonSchemaVerifier schema {what}; expected at most {MAX_JSON_DEPTH} levels of $ref, allOf and the like. "
            "Remove a $ref"
        )


def _pointers(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in _POINTERS:
        if isinstance(schema.get(key), str):
            yield key, schema[key]


def _target(resolver: Any, key: str, text: str) -> Any:
    """What a pointer leads to."""
    from referencing.exceptions import Unresolvable

    if not text.startswith("#"):
        raise VerifierError(
            f"JsonSchemaVerifier schema has {key} {text[:80]!r}, and nothing is fetched; "
            "copy what it names into $defs and refer to it as '#/$defs/...'"
        )
    try:
        return resolver.lookup(text).contents
    except (Unresolvable, ValueError, TypeError) as error:  # the last two of a name in a list or a number
        raise VerifierError(
            f"JsonSchemaVerifier schema has {key} {text[:80]!r}, which it does not hold; correct the path"
        ) from error


def _levels(schema: Any, targets: Mapping[int, list[Any]], known: dict[int, float]) -> float:
    """How many schemas look at one value, one from within the other; infinite where one leads to itself."""
    if not isinstance(schema, dict):
        return 0.0
    if id(schema) not in known:
        known[id(schema)] = math.inf  # for whoever comes back here before it is known
        inner = list(targets.get(id(schema), []))
        for key in _SAME_VALUE:
            value = schema.get(key)
            inner += value if isinstance(value, list) else [value]
        for key in _SAME_VALUE_BY_NAME:
            value = schema.get(key)
            inner += value.values() if isinstance(value, dict) else []
        known[id(schema)] = 1.0 + max((_levels(one, targets, known) for one in inner), default=0.0)
    return known[id(schema)]
