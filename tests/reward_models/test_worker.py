"""Messages between the pool and its workers."""

import json

import pytest

from reward_models import Verdict
from reward_models.worker import WorkerSettings, decode_reply, encode_job, encode_reply


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict.correct("5", "why"),
        Verdict.wrong("\ud800\n", ""),
        Verdict.no_answer(),
        Verdict.bad_reference("no"),
        Verdict.timeout("late"),
        Verdict.error("broken"),
    ],
)
@pytest.mark.parametrize("retire", [True, False])
def test_a_verdict_survives_the_trip(verdict: Verdict, retire: bool) -> None:
    assert decode_reply(encode_reply(verdict, retire=retire)) == (verdict, retire)


@pytest.mark.parametrize("message", [b"", b"{}", b'["perfect", null, "", false]', b"[1, 2]", b"null"])
def test_what_is_no_verdict_is_refused(message: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode_reply(message)


def test_jobs_and_settings_are_json() -> None:
    assert json.loads(encode_job("a\ud800", "b")) == ["a\ud800", "b"]
    settings = WorkerSettings(2.5, None, 7.0)
    assert WorkerSettings(**json.loads(settings.to_json())) == settings
