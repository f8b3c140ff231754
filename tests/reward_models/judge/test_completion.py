"""Reading a chat completion: the server may have sent anything."""

import json

import pytest

from reward_models.judge import JudgeOutcome
from reward_models.judge.completion import read_completion


def body(message, finish_reason="stop", **more) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}], **more}).encode()


def test_an_answer_with_its_tokens():
    reply = read_completion(body({"content": "text"}, usage={"prompt_tokens": 7, "completion_tokens": 3}))
    assert (reply.outcome, reply.text, reply.prompt_tokens, reply.completion_tokens) == (JudgeOutcome.OK, "text", 7, 3)


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": "7"}, {"prompt_tokens": -1}, {"prompt_tokens": True}])
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
        b"",
        b"\xff\xfe",
        b"<html>",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": {}}',
        b'{"choices": [null]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": "text"}]}',
        b"[" * 200_000,
        b'{"error": {"message": "overloaded"}}',
    ],
)
def test_what_is_no_chat_completion_is_an_error_of_the_server(sent):
    reply = read_completion(sent)
    assert reply.outcome is JudgeOutcome.SERVER_ERROR
    assert len(reply.text) < 300
