"""What a judge keeps on disk, what it counts, and where the key does not go."""

import pickle
import sys
from dataclasses import replace

import pytest
from judge_server import score

from reward_models import VerifierError
from reward_models.judge import Judge, JudgeOutcome, prompts, scales


def test_an_answer_on_disk_is_not_asked_for_again(server, tmp_path):
    commands = ["score 0.5", "status 401", "score 0.75"]
    first, counts = score(server, commands, cache_dir=str(tmp_path))
    again, counts_again = score(server, commands, cache_dir=str(tmp_path))
    assert [judgement.value for judgement in again] == [judgement.value for judgement in first] == [0.5, None, 0.75]
    assert [judgement.cached for judgement in again] == [True, False, True]
    assert (again[0].reason, again[0].prompt_tokens) == ("because", 100)
    assert (counts.requests, counts.cache_hits, counts.prompt_tokens) == (3, 0, 200)
    assert (counts_again.requests, counts_again.cache_hits, counts_again.prompt_tokens) == (1, 2, 0)


@pytest.mark.parametrize("failure", ["refuse", "length", "score 85", "status 500"])
def test_a_failure_is_not_kept(server, tmp_path, failure):
    settings = {"cache_dir": str(tmp_path), "max_retries": 0}
    [first], _ = score(server, [f"times 1 {failure} then score 0.5"], **settings)
    [second], _ = score(server, [f"times 1 {failure} then score 0.5"], **settings)
    assert (first.value, second.value, second.cached) == (None, 0.5, False)


@pytest.mark.parametrize(
    "change",
    [{"model": "another"}, {"temperature": 0.5}, {"max_tokens": 99}, {"structured": "off"}, {"max_text_chars": 100}],
)
def test_another_setting_is_another_question(server, tmp_path, change):
    text = "do: score 0.5\n" + "x" * 200
    for settings in ({}, change, {}, change):
        with Judge(server.settings(cache_dir=str(tmp_path), **settings)) as judge:
            judge.score_many("anything", [text])
    assert len(server.requests()) == 2


def test_another_server_or_criterion_is_another_question(server, tmp_path):
    other = server.url.replace("127.0.0.1", "localhost")
    for url in (server.url, other, server.url, other):
        with Judge(server.settings(cache_dir=str(tmp_path), base_url=url)) as judge:
            judge.score_many("one criterion", ["do: score 0.5"])
            judge.score_many("another criterion", ["do: score 0.5"])
    assert len(server.requests()) == 4


def test_another_schema_is_another_question(server, tmp_path, monkeypatch):
    score(server, ["score 0.5"], cache_dir=str(tmp_path))
    monkeypatch.setattr(prompts, "SCORE", replace(scales.SCORE, field_schema={"type": "number", "minimum": 0}))
    [judgement], _ = score(server, ["score 0.5"], cache_dir=str(tmp_path))
    assert not judgement.cached


def test_a_damaged_entry_is_asked_for_and_written_anew(server, tmp_path):
    score(server, ["score 0.5"], cache_dir=str(tmp_path))
    [entry] = tmp_path.rglob("*.json")
    whole = entry.read_bytes()
    for damage in (b"", whole[:20], b"\xff\xfe", b"[]", whole.replace(b"0.5", b"5.0")):
        entry.write_bytes(damage)
        [judgement], counts = score(server, ["score 0.5"], cache_dir=str(tmp_path))
        assert (judgement.value, judgement.cached, counts.requests) == (0.5, False, 1)
        assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_no_judgement(server, tmp_path, caplog):
    with Judge(server.settings(cache_dir=str(tmp_path))) as judge:
        judge.score_many("anything", ["do: score 0.5"])
        for folder in tmp_path.iterdir():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        tmp_path.rmdir()
        judgements = judge.score_many("anything", ["do: score 0.25", "do: score 0.125"])
        assert [judgement.value for judgement in judgements] == [0.25, 0.125]
        assert judge.counts().cache_errors == 2
    assert len([record for record in caplog.records if "are not kept" in record.message]) == 1


def test_equal_questions_of_one_call_are_asked_once(server):
    judgements, counts = score(server, ["score 0.5"] * 10 + ["score 0.25"])
    assert [judgement.value for judgement in judgements] == [0.5] * 10 + [0.25]
    assert (counts.requests, counts.judgements, counts.prompt_tokens) == (2, 11, 200)


def test_tokens_and_cost(server):
    prices = {"price_per_million_in": 2.0, "price_per_million_out": 10.0}
    # Two answers, a refusal and an unusable answer cost 100 and 10 tokens each; one does not say.
    commands = ["score 0.5", "score 0.25", "refuse", "score 85", "nousage", "status 400"]
    _, counts = score(server, commands, **prices)
    assert (counts.prompt_tokens, counts.completion_tokens, counts.without_usage) == (400, 40, 1)
    assert counts.cost == pytest.approx((400 * 2.0 + 40 * 10.0) / 1e6)
    assert score(server, ["score 0.5"])[1].cost is None


def test_the_key_is_sent_and_shown_nowhere_else(server, tmp_path, monkeypatch, caplog):
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("MY_JUDGE_KEY", key)
    caplog.set_level("DEBUG")
    settings = server.settings(api_key_env="MY_JUDGE_KEY", cache_dir=str(tmp_path))
    with Judge(settings) as judge:
        judge.score_many("anything", ["do: score 0.5"])
        state = [repr(judge), repr(settings), str(pickle.dumps(judge)), repr(judge.counts())]
    [rejected], _ = score(server, ["score 0.5"], api_key_env="MY_JUDGE_KEY", model="wrong-key")
    assert rejected.outcome is JudgeOutcome.UNAUTHORIZED
    assert "no such key" in rejected.reason
    assert {request["key"] for request in server.requests()} == {f"Bearer {key}"}
    on_disk = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(on_disk) == 1
    for place in [*state, *on_disk, rejected.reason, caplog.text]:
        assert key not in place


@pytest.mark.parametrize("place", ["answer", "reason", "refusal", "200", "401", "500"])
@pytest.mark.parametrize("before", [0, 170, 280])
def test_a_key_that_the_server_quotes_is_taken_out_before_anything_is_cut_or_kept(
    server, tmp_path, monkeypatch, place, before
):
    monkeypatch.setenv("MY_JUDGE_KEY", "sk-very-secret-0123456789")
    settings = {"api_key_env": "MY_JUDGE_KEY", "cache_dir": str(tmp_path), "max_retries": 0}
    [judgement], _ = score(server, [f"echo {place} {before}"], **settings)
    assert "sk-" not in judgement.reason
    assert not any("sk-" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_word_for_a_server_that_takes_any_key_is_left_in_its_replies(server, monkeypatch):
    monkeypatch.setenv("MY_JUDGE_KEY", "score")
    assert score(server, ["score 0.5"], api_key_env="MY_JUDGE_KEY")[0][0].value == 0.5


def test_what_the_environment_says_for_openai_is_not_sent_elsewhere(server, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "for-openai")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: for-openai\nAuthorization: for-openai")
    score(server, ["score 0.5"])
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("MY_JUDGE_KEY", "sk-mine")
    score(server, ["score 0.5"], base_url=None, api_key_env="MY_JUDGE_KEY")
    own, openais = (request["headers"] for request in server.requests())
    assert "for-openai" not in str(own)
    assert own["authorization"] == "Bearer none"
    assert (openais["openai-organization"], openais["x-mine"]) == ("for-openai", "for-openai")


def test_a_key_of_the_environment_is_not_sent_to_a_server_that_needs_none(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-somebody-else")
    score(server, ["score 0.5"])
    assert [request["key"] for request in server.requests()] == ["Bearer none"]


def test_a_key_that_is_not_set_is_said_before_anything_is_sent(server, monkeypatch):
    monkeypatch.delenv("MY_JUDGE_KEY", raising=False)
    with (
        Judge(server.settings(api_key_env="MY_JUDGE_KEY")) as judge,
        pytest.raises(VerifierError, match="MY_JUDGE_KEY"),
    ):
        judge.score_many("anything", ["do: score 0.5"])
    assert server.requests() == []


@pytest.mark.parametrize("key", ["sk-s\u00e9cret", "two words", "line\nbreak"])
def test_what_cannot_be_a_key_is_said_without_showing_it(server, monkeypatch, key):
    monkeypatch.setenv("MY_JUDGE_KEY", key)
    with pytest.raises(VerifierError, match="holds something that is no key") as refusal:
        server.settings(api_key_env="MY_JUDGE_KEY").api_key()
    assert key not in str(refusal.value)


def test_a_missing_package_is_one_sentence(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with Judge(server.settings()) as judge, pytest.raises(VerifierError, match=r"pip install rltoolkit\[judge\]"):
        judge.score_many("anything", ["do: score 0.5"])
