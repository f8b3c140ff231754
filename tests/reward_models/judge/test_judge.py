"""The judge against a real server in a process of its own: what comes back, and how often it is asked."""

import asyncio
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from reward_models import VerifierError
from reward_models.judge import Judge, JudgeOutcome, JudgeSettings, prompts, scales, transport

ROOT = Path(__file__).parents[3]
OK = JudgeOutcome.OK
# Of anyio, when a connection is given up in its first step.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp")


def score(server, commands, **settings):
    """The judgements of texts that tell the server what to do, and the counts after them."""
    with Judge(server.settings(**settings)) as judge:
        return judge.score_many("anything", [f"do: {command}" for command in commands]), judge.counts()


def test_scores_keep_the_order(server):
    # Every third one comes back late, so that the order of arrival is another one.
    values = [i / 40 for i in range(40)]
    commands = [f"slow {0.2 if i % 3 == 0 else 0} score {value}" for i, value in enumerate(values)]
    judgements, counts = score(server, commands)
    assert [judgement.value for judgement in judgements] == values
    assert {judgement.outcome for judgement in judgements} == {OK}
    assert judgements[0].reason == "because"
    assert (counts.requests, counts.retries, counts.judgements, counts.failures) == (40, 0, 40, 0)


@pytest.mark.parametrize(
    ("command", "outcome", "requests"),
    [
        ('say "I would give it a good mark."', JudgeOutcome.BAD_ANSWER, 1),
        ('say ""', JudgeOutcome.BAD_ANSWER, 1),
        ("score 85", JudgeOutcome.BAD_ANSWER, 1),
        ("score -0.1", JudgeOutcome.BAD_ANSWER, 1),
        ('score "0.5"', JudgeOutcome.BAD_ANSWER, 1),
        ("length", JudgeOutcome.TRUNCATED, 1),
        ("refuse", JudgeOutcome.REFUSED, 1),
        ("filter", JudgeOutcome.REFUSED, 1),
        ("status 400 code=content_filter", JudgeOutcome.REFUSED, 2),  # the second time without the schema
        ("status 401", JudgeOutcome.UNAUTHORIZED, 1),
        ("status 403", JudgeOutcome.UNAUTHORIZED, 1),
        ("status 404", JudgeOutcome.BAD_REQUEST, 1),
        ("status 400", JudgeOutcome.BAD_REQUEST, 2),
        ("status 429", JudgeOutcome.RATE_LIMITED, 3),
        ("status 429 code=insufficient_quota", JudgeOutcome.RATE_LIMITED, 1),
        ("status 500", JudgeOutcome.SERVER_ERROR, 3),
        ("status 503", JudgeOutcome.SERVER_ERROR, 3),
        ("garbage", JudgeOutcome.SERVER_ERROR, 3),
        ("halfjson", JudgeOutcome.SERVER_ERROR, 3),
        ("empty", JudgeOutcome.SERVER_ERROR, 3),
        ("oddbody 500 \xff", JudgeOutcome.SERVER_ERROR, 3),
        ('oddbody 500 {"error": "text"}', JudgeOutcome.SERVER_ERROR, 3),
        ("oddbody 429 [1]", JudgeOutcome.RATE_LIMITED, 3),
        ('oddbody 404 {"error": {"code": [], "param": {}, "message": 7}}', JudgeOutcome.BAD_REQUEST, 1),
        ("oddbody 404 null", JudgeOutcome.BAD_REQUEST, 1),
        ('oddbody 200 {"error": {"message": "overloaded"}}', JudgeOutcome.SERVER_ERROR, 3),
        ("badgzip", JudgeOutcome.SERVER_ERROR, 3),
        ("redirect", JudgeOutcome.BAD_REQUEST, 1),
        ("oddbody 500 " + '{"error": {"code": ' + "[" * 100_000, JudgeOutcome.SERVER_ERROR, 3),
        ("noise", JudgeOutcome.UNREACHABLE, 3),
        ("cut", JudgeOutcome.UNREACHABLE, 3),
        ("drop", JudgeOutcome.UNREACHABLE, 3),
    ],
)
def test_a_failure_has_its_own_outcome_and_no_number(server, command, outcome, requests):
    [judgement], counts = score(server, [command])
    assert (judgement.outcome, judgement.value) == (outcome, None)
    assert judgement.reason
    assert (counts.outcomes[outcome], counts.failures) == (1, 1)
    assert len(server.requests()) == counts.requests == requests
    assert counts.retries == (2 if requests == 3 else 0)


def test_one_that_never_ends_is_left_at_its_limit_and_holds_up_nobody(server):
    start = time.perf_counter()
    commands = ["hang", "drip"] + [f"score {i / 10}" for i in range(10)]
    judgements, counts = score(server, commands, timeout_s=2.0, max_retries=0, concurrency=3)
    # The limit is 2 s; the rest is allowance for a busy machine. The server would take 30 s.
    assert time.perf_counter() - start < 15
    assert [judgement.outcome for judgement in judgements[:2]] == [JudgeOutcome.TIMEOUT] * 2
    assert [judgement.value for judgement in judgements[2:]] == [i / 10 for i in range(10)]
    assert (counts.requests, counts.retries) == (12, 0)


def test_the_total_limit_ends_the_retries(server):
    start = time.perf_counter()
    [judgement], counts = score(server, ["hang"], timeout_s=1.0, total_timeout_s=1.5, max_retries=50)
    assert time.perf_counter() - start < 12
    assert judgement.outcome is JudgeOutcome.TIMEOUT
    assert counts.requests <= 3


@pytest.mark.parametrize("failure", ["status 429", "status 500", "garbage", "cut", "drop", "empty"])
def test_a_passing_failure_is_retried(server, failure):
    [judgement], counts = score(server, [f"times 2 {failure} then score 0.25"])
    assert (judgement.outcome, judgement.value) == (OK, 0.25)
    assert (counts.requests, counts.retries) == (3, 2)


def test_the_server_may_ask_for_a_wait(server):
    start = time.perf_counter()
    [judgement], _ = score(server, ["times 1 status 429 retry-after=1.2 then score 1"])
    assert judgement.value == 1.0
    assert time.perf_counter() - start >= 1.2  # the back-off alone is 0.01 s


def test_a_batch_that_a_dead_server_leaves_unanswered_is_given_up(server):
    commands = [f"hang {i}" for i in range(100)]
    judgements, counts = score(server, commands, timeout_s=0.5, total_timeout_s=0.5, concurrency=5)
    assert {judgement.outcome for judgement in judgements} == {JudgeOutcome.TIMEOUT}
    assert counts.requests < 10
    assert counts.outcomes[JudgeOutcome.TIMEOUT] == 100
    assert "not asked: 5 questions of the batch in a row ended so: no complete answer" in judgements[-1].reason


def test_a_batch_is_not_given_up_for_failures_between_answers(server):
    commands = [f"status 500 {i}" if i % 4 else f"score 0.{i}" for i in range(20)]
    with Judge(server.settings(max_retries=0, concurrency=1)) as judge:
        judgements = judge.score_many("anything", [f"do: {command}" for command in commands])
        assert judge.counts().requests == 20
        assert [judgement.outcome for judgement in judgements].count(OK) == 5
        judge.score_many("anything", [f"do: status 500 {i}" for i in range(20)])
        assert judge.counts().requests == 24
        [judgement] = judge.score_many("anything", ["do: score 0.5"])  # the next batch is asked again
        assert judgement.value == 0.5


@pytest.mark.parametrize("wait", ["3600", "date+3600"])
def test_a_wait_beyond_the_total_limit_is_not_begun(server, wait):
    start = time.perf_counter()
    [judgement], counts = score(server, [f"status 429 retry-after={wait}"])
    assert judgement.outcome is JudgeOutcome.RATE_LIMITED
    assert "asks to wait 3.6e+03 s" in judgement.reason
    assert counts.requests == 1
    assert time.perf_counter() - start < 30


def test_no_more_requests_in_flight_than_allowed_even_from_several_threads(server):
    with Judge(server.settings(concurrency=3)) as judge:

        def ask(thread: int) -> None:
            judge.score_many("anything", [f"do: slow 0.1 score 0.{thread}{i}" for i in range(6)])

        threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert judge.counts().outcomes[OK] == 18
    assert server.most_in_flight() == 3


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("redirect", "status 307, and points to /v1/chat/completions: moved"),
        ('oddbody 404 {"detail": "no such model"}', 'status 404: {"detail": "no such model"}'),
        ("oddbody 404 no such model", "status 404: no such model"),
        ('oddbody 404 {"error": {"message": "no such model"}}', "no such model"),
    ],
)
def test_the_reason_is_what_the_server_says(server, command, said):
    [judgement], _ = score(server, [command])
    assert said in judgement.reason


@pytest.mark.parametrize(
    "charset", ["zlib_codec", "hex", "base64", "rot13", "idna", "undefined", "punycode", "utf-16", "none-such"]
)
def test_an_encoding_that_is_none_costs_one_question_only(server, charset):
    commands = [f"charset 500 {charset}", f"charset 400 {charset}", f"charset 200 {charset}", "score 0.5"]
    judgements, _ = score(server, commands, max_retries=0, structured="off")
    outcomes = [JudgeOutcome.SERVER_ERROR, JudgeOutcome.BAD_REQUEST, JudgeOutcome.SERVER_ERROR, OK]
    assert [judgement.outcome for judgement in judgements] == outcomes
    assert all("bad \ufffd luck" in judgement.reason for judgement in judgements[:3])


def test_whatever_a_library_raises_costs_one_question_only(server, monkeypatch):
    def read(body: str) -> None:
        if "0.25" in body:
            raise LookupError("of some library")
        return real(body)

    real = transport.read_completion
    monkeypatch.setattr(transport, "read_completion", read)
    judgements, counts = score(server, ["score 0.25", "score 0.5"])
    assert [judgement.outcome for judgement in judgements] == [JudgeOutcome.SERVER_ERROR, OK]
    assert judgements[0].reason == "a reply that cannot be read: LookupError: of some library"
    assert counts.retries == 2


@pytest.mark.parametrize("command", ["flood 200", "flood 307", "flood 500", "bomb"])
def test_a_reply_without_end_takes_no_memory(server, command):
    score(server, ["score 0.5"])
    before = psutil.Process().memory_info().rss
    peaks = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peaks.append(psutil.Process().memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    [judgement], _ = score(server, [command], max_retries=0, timeout_s=20.0)
    done.set()
    watching.join()
    assert judgement.outcome is (JudgeOutcome.BAD_REQUEST if command == "flood 307" else JudgeOutcome.SERVER_ERROR)
    assert max(peaks) - before < 100e6  # a few times the limit of 4 MB; without one there were 2 GB


def test_nobody_listens():
    settings = JudgeSettings("judge", base_url="http://127.0.0.1:9/v1", backoff_s=0.01, max_retries=1)
    with Judge(settings) as judge:
        [judgement] = judge.score_many("anything", ["text"])
        assert judgement.outcome is JudgeOutcome.UNREACHABLE
        assert judge.counts().requests == 2


def test_what_is_no_text_is_never_sent_and_costs_only_itself(server):
    with Judge(server.settings()) as judge:
        judgements = judge.score_many("anything", [b"bytes", "do: score 0.5", None])
        assert [judgement.value for judgement in judgements] == [None, 0.5, None]
        assert judge.counts().outcomes[JudgeOutcome.BAD_REQUEST] == 2
        assert judge.counts().requests == 1


def test_a_text_without_encoding_is_never_sent(server):
    with Judge(server.settings()) as judge:
        judgements = judge.score_many("anything", ["\ud800", "do: score 0.5"])
        judgements += judge.rubric_many(["\ud800", "b"], ["q", "q"], ["a", "do: grade 4"], ["r", None])
    assert [judgement.value for judgement in judgements] == [None, 0.5, None, 4.0]
    assert judgements[0].outcome is JudgeOutcome.BAD_REQUEST
    assert "lone surrogate" in judgements[0].reason


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda judge: judge.score_many(None, ["a"]), "criterion is None; expected the text"),
        (lambda judge: judge.score_many(" ", ["a"]), "criterion is ' '"),
        (lambda judge: judge.score_many("\ud800", ["a"]), "criterion is '\\ud800'"),
        (lambda judge: judge.prefer_many(["p"], ["a"], ["b"], criterion=7), "criterion is 7"),
        (lambda judge: judge.rubric_many("", ["p"], ["a"]), "rubrics is ''"),
        (lambda judge: judge.score_many("c", "abc"), "responses is one text"),
        (lambda judge: judge.score_many("c", ["a"], "p"), "prompts is one text"),
        (lambda judge: judge.rubric_many("r", ["p"], ["a"], "b"), "references is one text"),
    ],
)
def test_what_is_no_question_is_refused(call, said):
    with pytest.raises(VerifierError) as refusal:
        call(Judge(JudgeSettings("judge", base_url="http://127.0.0.1:9/v1")))
    assert said in str(refusal.value)


@pytest.mark.parametrize("text", ["", "\0", "x" * 10_000_000, "{" * 50_000])
def test_hostile_texts_are_asked_about_like_any_other(server, text):
    with Judge(server.settings()) as judge:
        [judgement] = judge.score_many("anything", [text], ["do: score 0.5"])
        assert judgement.value == 0.5
        assert judge.counts().cut == (len(text) > 24_000)
    [request] = server.requests()
    assert len(request["body"]["messages"][-1]["content"]) < 25_000


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        'Here you are:\n```json\n{"reason": "x", "score": 0.75}\n```',
        '<think>perhaps {"score": 0.1}</think>{"score": 0.75}',
    ],
)
def test_an_object_within_other_text_is_read(server, said):
    [judgement], _ = score(server, [f"say {json.dumps(said)}"], structured="off")
    assert judgement.value == 0.75


def test_rubric_grades(server):
    with Judge(server.settings()) as judge:
        good, out, broken = judge.rubric_many(
            ["1: bad ... 5: good"] * 3, ["q"] * 3, ["do: grade 4", "do: grade 6", "do: grade 3.5"], ["r", None, None]
        )
        [same] = judge.rubric_many("1: bad ... 5: good", ["q"], ["do: grade 4"], ["r"])
    assert (good.value, same.value) == (4.0, 4.0)
    assert {out.outcome, broken.outcome} == {JudgeOutcome.BAD_ANSWER}
    first = server.requests()[0]["body"]
    assert first["response_format"]["json_schema"]["schema"]["properties"]["grade"]["enum"] == [1, 2, 3, 4, 5]


def test_a_consistent_judge_prefers_the_same_text_in_both_orders(server):
    with Judge(server.settings()) as judge:
        firsts, seconds = ["long text", "no", "same"], ["short", "longer", "text"]
        preferences = judge.prefer_many(["do: choose longer"] * 3, firsts, seconds)
        counts = judge.counts()
    assert [preference.probability for preference in preferences] == [1.0, 0.0, 0.5]
    assert [preference.position_bias for preference in preferences] == [0.0, 0.0, 0.0]
    assert (counts.pairs, counts.position_bias, counts.requests) == (3, 0.0, 6)


def test_a_judge_that_leans_to_the_first_is_evened_out_and_found_out(server):
    with Judge(server.settings()) as judge:
        preferences = judge.prefer_many(["do: choose lean"] * 2, ["abc", "abc"], ["abcd", "a very long text"])
        counts = judge.counts()
    assert [preference.probability for preference in preferences] == [0.5, 0.0]
    assert [preference.position_bias for preference in preferences] == [0.5, 0.0]
    assert counts.position_bias == 0.25


def test_responses_that_differ_only_in_what_is_cut_are_no_tie(server):
    ends = "a" * 60, "b" * 60
    with Judge(server.settings(max_text_chars=100)) as judge:
        [pair, _] = judge.prefer_many(["do: choose A"] * 2, ["X".join(ends), "do: choose A"], ["Y".join(ends), "x"])
        counts = judge.counts()
    assert (pair.probability, pair.as_given.outcome) == (None, JudgeOutcome.BAD_REQUEST)
    assert "differ only in what is cut; raise max_text_chars above 100" in pair.as_given.reason
    assert (counts.pairs, counts.requests) == (1, 2)


def test_an_order_that_failed_leaves_the_pair_out(server):
    with Judge(server.settings()) as judge:
        command = "do: times 1 choose A then refuse"
        [preference] = judge.prefer_many([command], ["one"], ["two"])
        counts = judge.counts()
    assert preference.probability is None
    assert preference.position_bias is None
    assert {preference.as_given.outcome, preference.swapped.outcome} == {OK, JudgeOutcome.REFUSED}
    assert (counts.pairs, counts.position_bias) == (0, None)


# --- what the server supports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["no-schema", "no-schema-422"])
def test_a_server_without_schemas_is_asked_without_and_that_is_remembered(server, model, caplog):
    with Judge(server.settings(model=model, concurrency=1)) as judge:
        judgements = judge.score_many("anything", [f"do: score 0.{i}" for i in range(5)])
        judgements += judge.score_many("anything", ["do: score 0.9"])
        assert [judgement.value for judgement in judgements] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.9]
        assert (judge.counts().requests, judge.counts().retries) == (7, 0)
    with_schema = ["response_format" in request["body"] for request in server.requests()]
    assert with_schema == [True] + [False] * 6
    assert len([record for record in caplog.records if "takes no JSON schema" in record.message]) == 1


def test_many_at_once_find_out_together(server):
    # The slow one is rejected when the others have long been answered without a schema.
    commands = ["slow 0.1 score 0.5"] + [f"score 0.{i}" for i in range(10, 20)]
    judgements, _ = score(server, commands, model="no-schema")
    assert {judgement.outcome for judgement in judgements} == {OK}


def test_a_schema_that_is_asked_for_is_not_dropped(server):
    [judgement], counts = score(server, ["score 0.5"], model="no-schema", structured="json_schema")
    assert (judgement.outcome, counts.requests) == (JudgeOutcome.BAD_REQUEST, 1)
    assert "response_format is not supported" in judgement.reason


def test_garbage_of_a_gateway_says_nothing_about_schemas(server):
    with Judge(server.settings(model="no-schema-after-garbage", max_retries=1)) as judge:
        [judgement] = judge.score_many("anything", ["do: times 1 garbage then score 0.5"])
        assert (judgement.value, judge.counts().requests) == (0.5, 3)


def test_once_a_schema_was_taken_a_rejection_is_about_the_question(server):
    with Judge(server.settings()) as judge:
        judge.score_many("anything", ["do: score 0.5"])
        [judgement] = judge.score_many("anything", ["do: status 400"])
        assert (judgement.outcome, judge.counts().requests) == (JudgeOutcome.BAD_REQUEST, 2)


def test_the_newer_name_of_the_token_limit_is_found_out_once(server):
    with Judge(server.settings(model="new-limit", max_tokens=77, concurrency=1)) as judge:
        judgements = judge.score_many("anything", ["do: score 0.1", "do: score 0.2"])
        assert [judgement.value for judgement in judgements] == [0.1, 0.2]
    assert [request["body"].get("max_completion_tokens") for request in server.requests()] == [None, 77, 77]


def test_the_request_says_what_the_settings_say(server):
    score(server, ["score 0.5"], temperature=0.3, max_tokens=55)
    score(server, ["score 0.5"], temperature=None, structured="off")
    first, second = (request["body"] for request in server.requests())
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("judge", 0.3, 55)
    assert first["response_format"]["json_schema"]["strict"] is True
    assert "temperature" not in second
    assert "response_format" not in second


# --- cache -----------------------------------------------------------------------------------------------------------


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


# --- tokens, cost, secrets -------------------------------------------------------------------------------------------


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


# --- where it is called from, and what it leaves behind --------------------------------------------------------------


def test_within_a_running_event_loop(server):
    async def both():
        with Judge(server.settings()) as judge:
            direct = judge.score_many("anything", ["do: score 0.5"])
            aside = await asyncio.to_thread(judge.score_many, "anything", ["do: score 0.25"])
            return direct + aside

    assert [judgement.value for judgement in asyncio.run(both())] == [0.5, 0.25]


def test_a_copy_through_pickle_asks_for_itself(server):
    with Judge(server.settings()) as judge:
        judge.score_many("anything", ["do: score 0.5"])
        with pickle.loads(pickle.dumps(judge)) as copy:
            assert copy.score_many("anything", ["do: score 0.25"])[0].value == 0.25
            assert copy.counts().requests == 1


def judge_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("judge")]


def test_closing_leaves_no_threads_and_no_sockets(server):
    process = psutil.Process()
    score(server, ["score 0.5"])
    threads, files, sockets = threading.active_count(), process.num_fds(), len(process.net_connections())
    for _ in range(3):
        score(server, ["score 0.5", "cut", "hang"], timeout_s=0.3, max_retries=0)
    assert (threading.active_count(), process.num_fds(), len(process.net_connections())) == (threads, files, sockets)


def test_a_judge_that_nobody_closed_goes_with_its_last_reference(server):
    judge = Judge(server.settings())
    judge.score_many("anything", ["do: score 0.5"])
    assert judge_threads()
    del judge
    gc.collect()
    assert judge_threads() == []


def test_a_closed_judge_starts_again(server):
    judge = Judge(server.settings())
    for _ in range(2):
        assert judge.score_many("anything", ["do: score 0.5"])[0].value == 0.5
        judge.close()
        judge.close()
    assert judge.counts().requests == 2
    assert judge_threads() == []


def test_closing_under_a_running_batch_ends_it_with_one_sentence(server):
    judge = Judge(server.settings())
    said = []

    def ask():
        try:
            judge.score_many("anything", ["do: hang"])
        except VerifierError as error:
            said.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(600):  # until the request is under way; bounded, not measured
        if server.requests():
            break
        time.sleep(0.1)
    judge.close()
    asking.join(timeout=20)  # the server would hold it up for 30 s
    assert said == ["the judge was closed while it was judging; close it after the last batch"]


def test_closing_again_and_again_while_others_ask_never_hangs(server):
    judge = Judge(server.settings(max_retries=0))
    ends = []

    def ask(thread: int) -> None:
        for i in range(5):
            try:
                ends.append(judge.score_many("anything", [f"do: score 0.{thread}{i}"])[0].outcome)
            except VerifierError:
                ends.append("closed")

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and len(ends) < 15:
        judge.close()
        time.sleep(0.01)
    for thread in threads:
        thread.join(timeout=30)
    judge.close()
    assert len(ends) == 15
    assert set(ends) <= {OK, "closed"}
    assert judge_threads() == []
    gc.collect()  # so that what anyio has to say about it is said, and kept quiet, here


def test_nothing_to_judge_starts_nothing():
    judge = Judge(JudgeSettings("judge", base_url="http://127.0.0.1:9/v1"))
    assert judge.score_many("anything", []) == []
    assert judge.prefer_many([], [], []) == []
    assert judge_threads() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda judge: judge.score_many("c", ["a", "b"], ["p"]),
        lambda judge: judge.prefer_many(["p"], ["a", "b"], ["a"]),
        lambda judge: judge.rubric_many(["r", "r"], ["p"], ["a"]),
    ],
)
def test_lengths_that_differ_are_refused(call):
    with pytest.raises(VerifierError, match="lengths differ"):
        call(Judge(JudgeSettings("judge", base_url="http://127.0.0.1:9/v1")))


def run_script(server, body):
    script = textwrap.dedent(
        f"""
        import os, sys
        from reward_models.judge import Judge, JudgeSettings
        judge = Judge(JudgeSettings("judge", base_url={server.url!r}, max_retries=0, concurrency=1))
        {textwrap.indent(textwrap.dedent(body), " " * 8).strip()}
        """
    )
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_ctrl_c_ends_a_batch_at_once(server):
    body = """
    try:
        judge.score_many("anything", ["do: hang"])
    except KeyboardInterrupt:
        print(judge.score_many("anything", ["do: score 0.5"])[0].value)  # the one slot is free again
    """
    process = run_script(server, body)
    for _ in range(600):  # until the request is under way; bounded, not measured
        if server.requests() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)  # the server would hold it up for 30 s
    assert (process.returncode, output.strip(), errors) == (0, b"0.5", b"")


def test_a_process_may_end_without_closing_its_judge(server):
    process = run_script(server, 'print(judge.score_many("anything", ["do: score 0.5"])[0].value)')
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output.strip(), errors) == (0, b"0.5", b"")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_of_a_started_judge_asks_for_itself(server):
    body = """
    judge.score_many("anything", ["do: score 0.5"])
    child = os.fork()
    print(judge.score_many("anything", ["do: score 0.25" if child else "do: score 0.75"])[0].value, flush=True)
    if child:
        print(os.waitpid(child, 0)[1])
    """
    process = run_script(server, body)
    output, errors = process.communicate(timeout=60)
    assert (sorted(output.split()), errors) == ([b"0", b"0.25", b"0.75"], b"")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_holds_a_lock_asks_and_ends(server):
    body = """
    import faulthandler, threading
    judge.score_many("anything", ["do: score 0.5"])
    held, forked = threading.Event(), threading.Event()

    def hold():
        with judge._lock, judge._tally._lock, judge._engine._loop._lock:
            held.set()
            forked.wait()

    threading.Thread(target=hold).start()
    held.wait()
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(20, exit=True)  # far beyond what it takes
        print(judge.score_many("anything", ["do: score 0.75"])[0].value, flush=True)
        judge.close()
        sys.exit()
    forked.set()
    print(os.waitpid(child, 0)[1])
    """
    process = run_script(server, body)
    output, errors = process.communicate(timeout=60)
    assert (output.split(), errors) == ([b"0.75", b"0"], b"")


def test_importing_the_judge_does_not_load_openai():
    code = "import sys, reward_models.judge, reward_models.judged_effort; print('openai' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT).strip() == b"False"
