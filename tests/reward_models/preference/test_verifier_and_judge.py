"""Verifiers and judges as preference oracles."""

from collections.abc import Sequence

import pytest

from reward_models.errors import VerifierError
from reward_models.judge import JudgedPair as JudgedPair
from reward_models.judge import Judgement, JudgeOutcome
from reward_models.pool import VerifierPool
from reward_models.preference import JudgeOracle, VerifierOracle
from reward_models.preference.judge_oracle import conversation
from reward_models.verdict import Verdict


class LastWord:
    """Correct where the response ends with the reference; some references make trouble."""

    def __init__(self) -> None:
        self.checked: list[tuple[str, str]] = []

    def check(self, response: str, reference: str) -> Verdict:
        self.checked.append((response, reference))
        if reference == "raise":
            raise RuntimeError("broken")
        if reference == "?":
            return Verdict.bad_reference("cannot be read")
        if not response:
            return Verdict.no_answer("empty")
        said = response.split()[-1]
        return Verdict.correct(said) if said == reference else Verdict.wrong(said)


REFERENCES = {"2+2": "4", "3+3": "6", "bad": "?", "broken": "raise", "number": 7, "list": ["4"]}


def test_the_correct_answer_beats_the_wrong_one_and_equal_outcomes_tie() -> None:
    oracle = VerifierOracle(LastWord(), REFERENCES)
    answers = oracle.prefer_many(
        ["2+2"] * 5, ["is 4", "is 5", "4", "is 5", "is 5"], ["is 5", "is 4", "so 4", "is 6", ""]
    )
    assert [answer.probability for answer in answers] == [1.0, 0.0, 0.5, 0.5, 0.5]
    assert [answer.is_tie for answer in answers] == [False, False, True, True, True]
    assert answers[4].detail == "wrong and no_answer"
    assert oracle.report.ties == 3


def test_what_cannot_be_scored_is_no_preference() -> None:
    oracle = VerifierOracle(LastWord(), REFERENCES)
    answers = oracle.prefer_many(["bad", "broken", "unknown", "list", "2+2"], ["4"] * 5, ["5"] * 5)
    assert [answer.probability for answer in answers] == [None, None, None, None, 1.0]
    assert answers[0].detail == "the first text: bad_reference, cannot be read"
    assert "LastWord.check raised RuntimeError: broken" in answers[1].detail
    assert answers[2].detail == "no reference for the prompt 'unknown'"
    assert answers[3].detail == "the reference is list, expected str, for the prompt 'list'"
    assert oracle.report.failed == 4


def test_references_are_found_by_the_last_message_of_the_user_or_by_a_function() -> None:
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    asked = [*chat, {"role": "user", "content": "number"}]
    assert VerifierOracle(LastWord(), REFERENCES).prefer(asked, "7", "8") == 1.0  # a number as reference
    oracle = VerifierOracle(LastWord(), lambda prompt: "8" if prompt is asked else None)
    assert oracle.prefer(asked, "7", "8") == 0.0
    assert oracle.prefer(chat, "7", "8") is None
    assert VerifierOracle(LastWord(), {}).prefer([{"role": "system", "content": "x"}], "7", "8") is None


def test_each_answer_is_judged_once_per_call() -> None:
    verifier = LastWord()
    VerifierOracle(verifier, REFERENCES).prefer_many(
        ["2+2", "2+2", "2+2", "3+3"], ["4", "4", "5", "4"], ["5", "6", "6", "5"]
    )
    assert sorted(verifier.checked) == [("4", "4"), ("4", "6"), ("5", "4"), ("5", "6"), ("6", "4")]


def test_a_pool_judges_with_its_deadline() -> None:
    from misbehaving_verifiers import ByCommand

    with VerifierPool(ByCommand(), workers=1, timeout_s=0.5) as pool:
        answer = VerifierOracle(pool, lambda _: "1").prefer_many(["q"], ["sleep 60"], ["1"])[0]
    assert answer.probability is None
    assert answer.detail.startswith("the first text: timeout")


def test_a_pool_gets_all_answers_in_one_call() -> None:
    class Pool:
        calls = 0

        def check_many(self, responses: list[str], references: list[str]) -> list[Verdict]:
            self.calls += 1
            return [LastWord().check(*pair) for pair in zip(responses, references, strict=True)]

    pool = Pool()
    answers = VerifierOracle(pool, REFERENCES).prefer_many(["2+2", "3+3"], ["4", "4"], ["5", "6"])  # type: ignore[arg-type]
    assert [answer.probability for answer in answers] == [1.0, 0.0]
    assert pool.calls == 1


def test_something_that_cannot_judge_is_refused() -> None:
    with pytest.raises(VerifierError, match="the verifier is object, which has neither check"):
        VerifierOracle(object(), {})  # type: ignore[arg-type]


class FakeJudge:
    """Says what a script says for (A, B), the way `Judge.prefer_many` does."""

    def __init__(self, script: dict[tuple[str, str], float | None]) -> None:
        self.script = script
        self.calls: list[tuple[list[str], dict[str, str]]] = []

    def prefer_many(
        self, prompts: Sequence[str], firsts: Sequence[str], seconds: Sequence[str], **options: str
    ) -> list[JudgedPair]:
        self.calls.append((list(prompts), options))
        return [JudgedPair(self._say(a, b), self._say(b, a)) for a, b in zip(firsts, seconds, strict=True)]

    def _say(self, shown_a: str, shown_b: str) -> Judgement:
        value = self.script[shown_a, shown_b]
        return Judgement(JudgeOutcome.TIMEOUT if value is None else JudgeOutcome.OK, value, "scripted")


def test_a_judge_is_averaged_over_both_orders_and_its_bias_reported() -> None:
    script = {("a", "b"): 1.0, ("b", "a"): 0.0, ("c", "d"): 1.0, ("d", "c"): 1.0, ("e", "f"): 0.5, ("f", "e"): 0.0}
    judge = FakeJudge(script)
    oracle = JudgeOracle(judge, criterion="shorter is better")  # type: ignore[arg-type]
    answers = oracle.prefer_many(["q"] * 3, ["a", "c", "e"], ["b", "d", "f"])
    assert [answer.probability for answer in answers] == [1.0, 0.5, 0.75]
    assert [oracle.prefer("q", *pair) for pair in (("b", "a"), ("d", "c"), ("f", "e"))] == [0.0, 0.5, 0.25]
    assert judge.calls[0] == (["q"] * 3, {"criterion": "shorter is better"})
    assert oracle.report.inconsistent == 2  # c against d, asked twice
    oracle.reset_report()
    oracle.prefer("q", "c", "d")
    assert oracle.report.position_bias == 0.5


@pytest.mark.parametrize("broken", [("a", "b"), ("b", "a")])
def test_one_failed_order_leaves_no_probability(broken: tuple[str, str]) -> None:
    script: dict[tuple[str, str], float | None] = {("a", "b"): 1.0, ("b", "a"): 1.0, broken: None}
    (answer,) = JudgeOracle(FakeJudge(script)).prefer_many(["q"], ["a"], ["b"])  # type: ignore[arg-type]
    place = "first" if broken == ("a", "b") else "second"
    assert answer.probability is None
    assert answer.detail == f"judge with the {place} text in front: timeout, scripted"


def test_a_judge_reads_a_conversation_as_one_text() -> None:
    assert conversation("q") == "q"
    assert conversation([{"role": "user", "content": "q"}]) == "q"
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert conversation(chat) == "system: s\n\nuser: q"
