"""The judge against a real server in a process of its own: what comes back, and how often it is asked."""

import json
import threading
import time

import pytest
from judge_server import score

from reward_models.judge import Judge, JudgeOutcome, JudgeSettings

OK = JudgeOutcome.OK
# Of anyio, when a connection is given up in its first step.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp")


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


def test_nobody_listens():
    settings = JudgeSettings("judge", base_url="http://127.0.0.1:9/v1", backoff_s=0.01, max_retries=1)
    with Judge(settings) as judge:
        [judgement] = judge.score_many("anything", ["text"])
        assert judgement.outcome is JudgeOutcome.UNREACHABLE
        assert judge.counts().requests == 2


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
