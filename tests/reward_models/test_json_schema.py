"""JSON answers: where they stand, what they must satisfy, and what is never fetched."""

import json
import socket

import pytest
from referencing.exceptions import Unresolvable

from reward_models import json_schema
from reward_models.errors import VerifierError
from reward_models.json_schema import JsonSchemaVerifier
from reward_models.json_text import MAX_JSON_CHARS, MAX_JSON_DEPTH
from reward_models.verdict import Outcome

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ages": {"type": "array", "items": {"type": "integer", "minimum": 0}}},
    "required": ["name"],
}
VERIFIER = JsonSchemaVerifier(schema=PERSON)


@pytest.mark.parametrize(
    ("response", "rule"),
    [
        ('{"name": "Ann", "ages": [3]}', "whole response"),
        ('Here:\n```json\n{"name": "Ann"}\n```\nDone.', "last ```json block"),
        ('```json\n{"name": 1}\n```\nbetter:\n```JSON\n{"name": "Ann"}\n```\n{"name": 2}', "last ```json block"),
        ('She is {"name": "Ann"}.', "last object"),
        ('{"name": 1} or {"name": "A {curly} } name"} ok', "last object"),
        ('\\frac{1}{2} {x} {"name": "Ann"} {y}', "last object"),
        ('```python\n{"name": 3}\n```\n{"name": "Ann"}', "last object"),
        ('```json\n{"name": "Ann"}', "last object"),
        ('```json\n{"name":\n```json\n{"name": "Ann"}\n```', "last ```json block"),
        ('<think>{"name": 1}</think>{"name": "Ann"}', "whole response"),
    ],
)
def test_where_the_json_stands(response: str, rule: str) -> None:
    verdict = VERIFIER.check(response, "")
    assert (verdict.outcome, verdict.detail) == (Outcome.CORRECT, f"{rule}; satisfies the schema")


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ('{"ages": [1]}', "$: 'name' is a required property"),
        ('{"name": "Ann", "ages": [1, 2, -3]}', "$.ages[2]: -3 is less than the minimum of 0"),
        ('{"name": "Ann", "ages": [1.5]}', "$.ages[0]: 1.5 is not of type 'integer'"),
        ("[]", "$: [] is not of type 'object'"),
        ('{"name": "Ann", "name": 3}', "$.name: 3 is not of type 'string'"),
    ],
)
def test_wrong_says_where(response: str, says: str) -> None:
    verdict = VERIFIER.check(response, "")
    assert (verdict.outcome, verdict.detail) == (Outcome.WRONG, f"whole response; {says}")


@pytest.mark.parametrize(
    "response",
    [
        "",
        "Ann",
        "{name: Ann}",
        "{'name': 'Ann'}",
        '{"name": "Ann"',
        '{"name": NaN}',
        '{"name": "Ann", "x": Infinity}',
        '{"name": "Ann", "x": 1e999}',
        '{"name": "Ann", "x": ' + "9" * 400 + "}",
        '{"name": "Ann"}\n```json\nnothing\n```',
        '{"a":' * 100_000,
        '{"a":' * 500 + "1" + "}" * 500,
        "[" * 1_000_000,
        '{"' * 1_000_000,
        "{}{" * 500_000,
        '"' * 1_000_000,
        "```json\n" * 300_000,
    ],
    ids=lambda text: text[:20],
)
def test_no_json_is_no_answer(response: str) -> None:
    outcome = VERIFIER.check(response, "").outcome
    assert outcome is (Outcome.WRONG if response.startswith("{}{") else Outcome.NO_ANSWER)


def test_size_and_depth_are_bounded() -> None:
    deep = JsonSchemaVerifier(schema={"items": {"$ref": "#"}})
    assert deep.check("[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH, "").outcome is Outcome.CORRECT
    refused = deep.check("[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1), "")
    assert refused.outcome is Outcome.NO_ANSWER
    long = '{"name": "' + "a" * MAX_JSON_CHARS + '"}'
    assert VERIFIER.check(long, "").outcome is Outcome.NO_ANSWER
    assert VERIFIER.check("a" * 10_000_000 + ' {"name": "Ann"}', "").outcome is Outcome.CORRECT


def test_the_reference_as_the_schema() -> None:
    verifier = JsonSchemaVerifier()
    assert verifier.check('{"name": "Ann"}', json.dumps(PERSON)).outcome is Outcome.CORRECT
    assert verifier.check('{"name": 3}', json.dumps(PERSON)).outcome is Outcome.WRONG
    for bad in (
        "",
        "{",
        "3",
        "[]",
        '{"type": "nothing"}',
        '{"pattern": "("}',
        '{"$ref": "http://127.0.0.1/x"}',
        "[" * 10**6,
    ):
        verdict = verifier.check('{"name": "Ann"}', bad)
        assert verdict.outcome is Outcome.BAD_REFERENCE
        assert "expected a JSON schema" in verdict.detail


def test_compared_with_the_reference() -> None:
    verifier = JsonSchemaVerifier(compare=True)
    reference = '{"a": [1, 2], "b": true}'
    assert verifier.check('{"b": true, "a": [1.0, 2]}', reference).outcome is Outcome.CORRECT
    for response in (
        '{"b": 1, "a": [1, 2]}',
        '{"b": true, "a": [2, 1]}',
        '{"b": true}',
        '{"a": [1, 2], "b": true, "c": 0}',
    ):
        assert verifier.check(response, reference).outcome is Outcome.WRONG
    assert verifier.check(reference, "{'a': 1}").outcome is Outcome.BAD_REFERENCE
    both = JsonSchemaVerifier(schema=PERSON, compare=True)
    assert both.check('{"name": "Ann"}', '{"name": "Ann"}').outcome is Outcome.CORRECT
    assert both.check('{"name": "Bob"}', '{"name": "Ann"}').outcome is Outcome.WRONG
    assert both.check('{"name": 3}', '{"name": 3}').outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "objekt"}, "no JSON schema at $.type"),
        ({"pattern": "("}, "no JSON schema at $.pattern"),
        ({"properties": {"a": {"$ref": "https://example.com/schema.json"}}}, "nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
        ({"$ref": "#/$defs/missing"}, "which it does not hold"),
        (
            {"items": [{"$ref": "other.json"}], "$schema": "http://json-schema.org/draft-07/schema#"},
            "nothing is fetched",
        ),
        ({"$defs": {"a": {"$id": "http://x/y"}}}, "keep it at the top or remove it"),
        (
            {
                "$schema": "http://json-schema.org/draft-04/schema#",
                "properties": {"a": {"id": "http://x/", "items": {"$ref": "#/definitions/q"}}},
                "definitions": {"q": {}},
            },
            "keep it at the top or remove it",
        ),
        ({"$schema": 5}, "$schema 5; expected a text"),
        ({"$schema": []}, "$schema []; expected a text"),
        ({"$ref": "#/x/q", "x": [{}]}, "which it does not hold"),
        ({"$ref": "#/x", "x": {"type": "objekt"}}, "no JSON schema at $.type"),
        ({"$ref": "#/const", "const": {"$ref": "http://x"}}, "nothing is fetched"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"not": {"$ref": "#"}}, "refers to itself without end"),
        ({"properties": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/properties/a"}]}}}, "itself without end"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"dependentSchemas": {"x": {"$ref": "#"}}}}}, "itself without end"),
        (
            {"$ref": "#/$defs/0", "$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(45)} | {"45": {}}},
            "looks at one value on 47 levels",
        ),
        (
            {"$ref": "#/$defs/0", "$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(4000)} | {"4000": {}}},
            "refers to itself without end",
        ),
        ({"const": float("nan")}, "is no JSON"),
        ({"const": {1, 2}}, "is no JSON"),
        (json.loads('{"items":' * 50 + "{}" + "}" * 50), "nested more than"),
        ([], "is list; expected an object"),
        ("{}", "is str; expected an object"),
    ],
)
def test_a_schema_that_cannot_be(schema, says: str) -> None:
    with pytest.raises(VerifierError) as caught:
        JsonSchemaVerifier(schema=schema)
    assert says in str(caught.value)


@pytest.mark.parametrize("schema", [{"$schema": 5}, {"$schema": {}}, {"$ref": "#"}, {"$ref": "#/x/q", "x": [{}]}])
def test_a_reference_that_is_no_schema_is_a_bad_reference(schema) -> None:
    text = json.dumps(schema)
    assert JsonSchemaVerifier().check("{}", text).outcome is Outcome.BAD_REFERENCE
    assert JsonSchemaVerifier().check(JsonSchemaVerifier().gold_response(text), text).outcome is Outcome.BAD_REFERENCE


@pytest.mark.parametrize("value", [{"$ref": "http://x"}, {"$id": "x"}, [{"$ref": "#/missing"}]])
@pytest.mark.parametrize("keyword", ["const", "enum", "default", "examples"])
def test_what_looks_like_a_reference_in_plain_data_is_data(keyword: str, value) -> None:
    text = json.dumps({keyword: [value] if keyword in ("enum", "examples") else value})
    assert JsonSchemaVerifier().check(JsonSchemaVerifier().gold_response(text), text).outcome is Outcome.CORRECT
    as_name = JsonSchemaVerifier(schema={"properties": {keyword: {"type": "integer"}}})
    assert as_name.check(json.dumps({keyword: value}), "").outcome is Outcome.WRONG


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments, **options):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for reference in ("http://127.0.0.1:9/x", "//127.0.0.1/x", "urn:x", "x.json#/a"):
        text = json.dumps({"type": "object", "properties": {"a": {"$ref": reference}}})
        assert JsonSchemaVerifier().check('{"a": 1}', text).outcome is Outcome.BAD_REFERENCE


def test_nothing_is_fetched_even_if_a_reference_is_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(json_schema, "require_inside", lambda schema, kind: None)
    monkeypatch.setattr(socket, "create_connection", lambda address, *rest, **options: opened.append(address))
    with pytest.raises(Unresolvable):
        JsonSchemaVerifier(schema={"$ref": "http://127.0.0.1:9/overlooked"}).check("{}", "")
    assert opened == []


def test_references_inside_work() -> None:
    tree = {
        "$id": "http://x/tree",
        "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}},
        "$ref": "#/$defs/n",
    }
    assert JsonSchemaVerifier(schema=tree).check('{"next": {"next": {}}}', "").outcome is Outcome.CORRECT
    assert JsonSchemaVerifier(schema=tree).check('{"next": {"next": 1}}', "").outcome is Outcome.WRONG


def test_a_schema_that_goes_in_circles_is_an_error() -> None:
    # Only in the first draft, whose keywords are not all looked into: others are refused as schemas.
    schema = {"$schema": "http://json-schema.org/draft-03/schema#", "extends": {"$ref": "#"}}
    verdict = JsonSchemaVerifier(schema=schema).check("{}", "")
    assert (verdict.outcome, verdict.detail) == (Outcome.ERROR, "the schema refers to itself without end")


def test_gold_responses() -> None:
    assert JsonSchemaVerifier(compare=True).gold_response('{"a": 1}') == '```json\n{"a": 1}\n```'
    for schema in ({"const": [1]}, {"enum": [[1], 2]}, {"type": "array", "examples": [[1]]}):
        text = json.dumps(schema)
        assert JsonSchemaVerifier().check(JsonSchemaVerifier().gold_response(text), text).outcome is Outcome.CORRECT
    assert VERIFIER.gold_response("") is None
    for bad in ("{", '{"type": 3}'):
        assert JsonSchemaVerifier().check(JsonSchemaVerifier().gold_response(bad), bad).outcome is Outcome.BAD_REFERENCE
