"""Reading a chat completion: the server may have sent anything."""

import json

import pytest

from reward_models.judge import JudgeOutcome
from reward_models.judge.completion import read_completion


def body(message, finish_reason="stop", **more) -> str:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}], **more})


def test_an_answer_with_its_tokens():
    reply = read_completion(body({"content": "text"}, usage={"prompt_tokens": 7, "completion_tokens": 3}))
    assert (reply.outcome, reply.text, reply.prompt_tokens, reply.completion_tokens) == (JudgeOutcome.OK, "text", 7, 3)


@pytest.mark.parametrize(
    "usage",
    [None, [], *({"prompt_tokens": count} for count in ("7", -1, True, 7.0, 10**9 + 1, 10**400))],
)
def test_tokens_that_are_none(usage):
    reply = read_completion(body({"content": "text"}, usage=usage))
    assert (reply.outcome, reply.prompt_tokens, reply.completion_tokens) == (JudgeOutcome.OK, None, None)


@pytest.mark.parametrize(
    ("message", "finish_reason", "outcome"),
    [
        ({"content": None}, "stop", JudgeOutcome.OK),  # empty: no answer can be read from it
        ({"content": None, "refusal": None}, None, JudgeOutcome.OK),
        ({"content": [{"type": "text"}]}, "stop", JudgeOutcome.OK),
        ({"content": "half"}, "length", JudgeOutcome.TRUNCATED),
        ({"content": None}, "length", JudgeOutcome.TRUNCATED),
        ({"content": None, "refusal": "no"}, "stop", JudgeOutcome.REFUSED),
        ({"content": "half"}, "content_filter", JudgeOutcome.REFUSED),
    ],
)
def test_how_an_answer_ended(message, finish_reason, outcome):
    assert read_completion(body(message, finish_reason)).outcome is outcome


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "\ufffd",
        "<html>",
        "null",
        "[]",
        "7",
        "{}",
        '{"choices": null}',
        '{"choices": []}',
        '{"choices": {}}',
        '{"choices": [null]}',
        '{"choices": [{}]}',
        '{"choices": [{"message": "text"}]}',
        "[" * 200_000,
        '{"error": {"message": "overloaded"}}',
    ],
)
def test_what_is_no_chat_completion_is_an_error_of_the_server(sent):
    reply = read_completion(sent)
    assert reply.outcome is JudgeOutcome.SERVER_ERROR
    assert len(reply.text) < 300
