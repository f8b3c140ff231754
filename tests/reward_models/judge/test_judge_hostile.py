"""The judge and what nobody should send: replies of a hostile server, texts and lists that are none."""

import threading

import psutil
import pytest
from judge_server import score

from reward_models import VerifierError
from reward_models.judge import Judge, JudgeOutcome, JudgeSettings, transport

OK = JudgeOutcome.OK
# Of anyio, when a connection is given up in its first step.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp")


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
