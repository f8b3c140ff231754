"""Answers that are JSON: they must satisfy a JSON schema, equal the reference, or both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from reward_models.answers.extraction import after_thinking
from reward_models.errors import VerifierError
from reward_models.json_text import FoundJson, NotJsonError, find_json, parse_json
from reward_models.schema_references import require_inside, require_schema
from reward_models.stated_answer import require_bool, shown, unreadable
from reward_models.verdict import Verdict

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_MAX_MESSAGE_CHARS = 200
_SCHEMA_CACHE = 256


class JsonSchemaVerifier:
    """Finds JSON in the response and checks it against a schema, and with `compare` against the reference.

    The JSON is the last block between ```` ```json ```` and ```` ``` ````, else the whole text if it is JSON, else the
    last object {...} in it. JSON is what its standard says: NaN and infinity are none; of a key given twice the
    last value counts.

    Schemas are read by the draft that `$schema` names, else by 2020-12; `format` is not checked. References must
    begin with `#`: nothing is ever fetched. A `pattern` in a schema can take for ever, as any regular expression
    can; only the time limit of a `VerifierPool` ends that.

    Args:
        schema: what the JSON must satisfy; None takes the reference for the schema, unless `compare`.
        compare: the reference is JSON, and the answer must equal it (1 equals 1.0, and true does not).
        thinking_end: only the text behind the last one counts; None if the model does not mark it.

    Raises:
        VerifierError: the schema is none, or refers to something outside of itself, or to itself without end.
    """

    def __init__(
        self,
        *,
        schema: Mapping[str, Any] | None = None,
        compare: bool = False,
        thinking_end: str | None = "</think>",
    ) -> None:
        require_bool("JsonSchemaVerifier", "compare", compare)
        if thinking_end is not None and not isinstance(thinking_end, str):
            raise VerifierError(f"JsonSchemaVerifier thinking_end is {thinking_end!r}; expected a text or None")
        self.compare = compare
        self.thinking_end = thinking_end
        self._schema = None if schema is None else _schema_text(schema)

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response; never raises on text, but may run for ever on a bad pattern in a schema."""
        try:
            demands = [_validator(self._schema)] if self._schema is not None else []
            if self.compare:
                demands.append(_validator(json.dumps({"const": parse_json(reference)})))
            elif self._schema is None:
                demands.append(_validator(_schema_text(parse_json(reference))))
        except (NotJsonError, VerifierError) as problem:
            return unreadable(reference, f"{'JSON' if self.compare else 'a JSON schema'} ({problem})")
        try:
            found = find_json(after_thinking(response, self.thinking_end))
        except NotJsonError as problem:
            return Verdict.no_answer(f"no JSON: {problem}")
        return self._judge(found, demands)

    def warm_up(self) -> None:
        """Load the schema library; a pool calls this before the first answer."""
        _validator(self._schema if self._schema is not None else "{}")

    def gold_response(self, reference: str) -> str | None:
        """A response with the JSON of the reference, or the constant or first example that the schema states."""
        if self.compare:
            return f"```json\n{reference}\n```"
        try:
            schema = json.loads(self._schema or _schema_text(parse_json(reference)))
        except (NotJsonError, VerifierError):
            return "{}"  # for the check to say what is wrong with the reference
        stated = [schema[key] for key in ("const", "default") if key in schema]
        stated += [value for key in ("examples", "enum") for value in _first(schema.get(key))]
        return f"```json\n{json.dumps(stated[0])}\n```" if stated else None

    def _judge(self, found: FoundJson, demands: list[Validator]) -> Verdict:
        text = shown(found.text)
        try:
            error = next((error for demand in demands for error in demand.iter_errors(found.value)), None)
        except RecursionError:
            return Verdict.error("the schema refers to itself without end")
        if error is None:
            rule = "equals the reference" if self.compare else "satisfies the schema"
            return Verdict.correct(text, f"{found.rule}; {rule}")
        message = (
            error.message if len(error.message) <= _MAX_MESSAGE_CHARS else error.message[:_MAX_MESSAGE_CHARS] + "…"
        )
        return Verdict.wrong(text, f"{found.rule}; {error.json_path}: {message}")


def _schema_text(schema: Any) -> str:
    """A schema as text that can be kept and pickled; raises VerifierError for what is no schema."""
    if not isinstance(schema, Mapping):
        raise VerifierError(f"JsonSchemaVerifier schema is {type(schema).__name__}; expected an object {{...}}")
    try:
        text = json.dumps(dict(schema), allow_nan=False)
        parse_json(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise VerifierError(f"JsonSchemaVerifier schema is no JSON ({error}); give plain data") from error
    _validator(text)
    return text


@lru_cache(maxsize=_SCHEMA_CACHE)
def _validator(schema_text: str) -> Validator:
    """The validator of a schema; raises VerifierError for a schema that is none or that needs something outside."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    schema = json.loads(schema_text)
    named = schema.get("$schema", "")
    if not isinstance(named, str):
        raise VerifierError(
            f"JsonSchemaVerifier schema has $schema {shown(repr(named))}; expected a text, or leave it out"
        )
    kind = validator_for(schema, default=Draft202012Validator)
    require_schema(schema, kind)
    require_inside(schema, kind)
    # An empty registry fetches nothing, whatever the look at the references may have missed.
    return kind(schema, registry=Registry())


def _first(values: Any) -> list[Any]:
    return values[:1] if isinstance(values, list) else []
