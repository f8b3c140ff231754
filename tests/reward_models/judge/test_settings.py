"""Settings: what cannot work is refused with the value and the remedy, and no secret gets in."""

import pickle

import pytest

from reward_models import VerifierError
from reward_models.judge import JudgeSettings

LOCAL = {"model": "judge", "base_url": "http://localhost:8000/v1"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": " "}, "judge.model is ' '"),
        ({"base_url": "localhost:8000"}, "judge.base_url is 'localhost:8000'; expected an address such as"),
        ({"base_url": "http://localhost:port/v1"}, "judge.base_url"),
        ({"base_url": ""}, "judge.base_url is ''"),
        ({"base_url": 8000}, "judge.base_url is 8000"),
        ({"base_url": None}, "judge.base_url and judge.api_key_env are both missing"),
        ({"temperature": -1}, "judge.temperature is -1; expected a number from 0 to 2"),
        ({"temperature": float("nan")}, "judge.temperature is nan"),
        ({"max_tokens": 0}, "judge.max_tokens is 0; expected an integer of at least 1"),
        ({"max_tokens": 10.0}, "judge.max_tokens is 10.0"),
        ({"timeout_s": 0}, "judge.timeout_s is 0; expected a number of seconds above 0"),
        ({"timeout_s": "60"}, "judge.timeout_s is '60'"),
        ({"timeout_s": float("inf")}, "judge.timeout_s is inf"),
        ({"total_timeout_s": 30.0}, "judge.total_timeout_s is 30.0 and timeout_s 60.0"),
        ({"max_retries": -1}, "judge.max_retries is -1"),
        ({"max_retries": True}, "judge.max_retries is True"),
        ({"backoff_s": 0.0}, "judge.backoff_s is 0.0"),
        ({"concurrency": 0}, "judge.concurrency is 0"),
        ({"structured": "yes"}, "judge.structured is 'yes'; expected auto, json_schema or off"),
        ({"cache_dir": ""}, "judge.cache_dir is ''"),
        ({"price_per_million_in": 1.0}, "give both or none"),
        ({"price_per_million_in": -1.0, "price_per_million_out": 1.0}, "judge.price_per_million_in is -1.0"),
        ({"max_text_chars": 10}, "judge.max_text_chars is 10; expected an integer of at least 100"),
    ],
)
def test_what_cannot_work_is_refused(change, said, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(VerifierError) as refusal:
        JudgeSettings(**LOCAL | change)
    assert said in str(refusal.value)


def test_all_that_cannot_work_is_said_at_once(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(VerifierError) as refusal:
        JudgeSettings("judge", timeout_s=400.0, price_per_million_in=1.0)
    for said in ("base_url and judge.api_key_env are both", "total_timeout_s is 300.0", "give both or none"):
        assert said in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "http://user:sk-secret@localhost/v1"},
        {"base_url": "http://localhost/v1?key=sk-secret"},
        {"api_key_env": "sk-secret"},
    ],
)
def test_a_key_in_the_wrong_place_is_refused_without_showing_it(change):
    with pytest.raises(VerifierError) as refusal:
        JudgeSettings(**LOCAL | change)
    assert "sk-secret" not in str(refusal.value)


def test_the_key_stays_in_the_environment(monkeypatch):
    monkeypatch.setenv("MY_JUDGE_KEY", "sk-secret")
    settings = JudgeSettings("judge", api_key_env="MY_JUDGE_KEY")
    assert settings.api_key() == "sk-secret"
    assert "sk-secret" not in repr(settings)
    assert b"sk-secret" not in pickle.dumps(settings)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_library_s_own_variable_may_name_the_server(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert JudgeSettings("judge").base_url is None
    assert JudgeSettings("judge").endpoint() == "http://localhost:8000/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert JudgeSettings("judge", api_key_env="MY_JUDGE_KEY").endpoint() == "https://api.openai.com/v1"
    with pytest.raises(VerifierError, match=r"base_url and judge\.api_key_env are both missing"):
        JudgeSettings("judge")
    for url in ("http://user:sk-secret@localhost/v1", "user:sk-secret@localhost"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(VerifierError, match="OPENAI_BASE_URL") as refusal:
            JudgeSettings("judge")
        assert "sk-secret" not in str(refusal.value)
