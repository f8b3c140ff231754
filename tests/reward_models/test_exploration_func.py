"""Effort is paid where an outcome allows it, and the reference is never seen."""

import copy
import functools
import math
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from misbehaving_verifiers import ByCommand

from reward_models import (
    CountdownVerifier,
    DistinctSteps,
    LengthExploration,
    RewardFunction,
    VerifierError,
    as_reward_func,
)
from reward_models.exploration_func import answer_start, as_exploration_func, tokens_before, tokens_before_answer

REFERENCE = "numbers=3,5,2;target=16"
RIGHT, WRONG, NONE = r"aaaa\boxed{(3+5)*2}", r"aaaaaa\boxed{3}", "bbbbbbbb"


def letters(text: str) -> list[int]:
    """A token per character."""
    return [ord(character) for character in text]


def decode(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def call(function: Any, completions: list[Any], **columns: Any) -> list[float | None]:
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    extra: dict[str, Any] = {"trainer_state": object(), "log_extra": lambda *_: None, "log_metric": lambda *_: None}
    result: list[float | None] = function(
        prompts=["p"] * len(completions),
        completions=completions,
        completion_ids=[letters(text) for text in texts],
        **{**extra, **columns},
    )
    return result


@pytest.fixture
def outcome() -> RewardFunction:
    return as_reward_func(CountdownVerifier(), pool=False)


def test_effort_counts_where_there_is_an_answer_and_a_reference(outcome: RewardFunction) -> None:
    effort = as_exploration_func(LengthExploration(10), outcome=outcome, decode=decode)
    completions = [RIGHT, WRONG, NONE, RIGHT, NONE]
    columns = {"answer": [REFERENCE] * 3 + ["damaged"] * 2}
    logged: dict[str, float] = {}
    assert call(outcome, completions, **columns) == [1.0, 0.0, 0.0, None, None]
    assert call(effort, completions, **columns, log_metric=logged.__setitem__) == [0.4, 0.6, 0.0, None, None]
    assert logged == {"exploration/LengthExploration/gated": 0.2, "exploration/LengthExploration/failed": 0.0}


def test_without_an_outcome_every_response_is_paid() -> None:
    effort = as_exploration_func(LengthExploration(10), decode=decode)
    assert call(effort, [RIGHT, NONE], answer=["damaged"] * 2) == [0.4, 0.8]


def test_conversations_are_read_like_plain_text(outcome: RewardFunction) -> None:
    effort = as_exploration_func(LengthExploration(10), outcome=outcome, decode=decode)
    chat = [[{"role": "assistant", "content": text}] for text in (RIGHT, NONE)]
    call(outcome, chat, answer=[REFERENCE] * 2)
    assert call(effort, chat, answer=[REFERENCE] * 2) == [0.4, 0.0]


class Spy:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def score(self, *arguments: Any, **keywords: Any) -> float:
        self.seen.append((arguments, keywords))
        return 0.5


def test_the_reward_never_sees_a_column() -> None:
    spy = Spy()
    call(as_exploration_func(spy, decode=decode), [RIGHT], answer=["secret"], gold=["secret"])
    assert spy.seen == [((RIGHT, 4), {})]


def test_the_outcome_must_have_judged_these_completions(outcome: RewardFunction) -> None:
    effort = as_exploration_func(LengthExploration(10), outcome=outcome, decode=decode)
    with pytest.raises(VerifierError, match=r"reward_funcs=\[outcome, exploration\]"):
        call(effort, [RIGHT], answer=[REFERENCE])
    call(outcome, [RIGHT], answer=[REFERENCE])
    assert call(effort, [RIGHT], answer=[REFERENCE]) == [0.4]
    for others in ([WRONG], [RIGHT, RIGHT], []):
        with pytest.raises(VerifierError, match="CountdownVerifier has not judged just before"):
            call(effort, others, answer=[REFERENCE] * len(others))


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_made_together_stay_tied(outcome: RewardFunction, twin: Any) -> None:
    functions = [outcome, as_exploration_func(LengthExploration(10), outcome=outcome, decode=decode)]
    judged, effort = twin(functions)
    assert effort.outcome is judged
    call(judged, [RIGHT, NONE], answer=[REFERENCE] * 2)
    assert call(effort, [RIGHT, NONE]) == [0.4, 0.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda outcome: as_exploration_func(outcome), "RewardFunction, expected an object with a method score"),
        (lambda outcome: as_exploration_func(LengthExploration), "the class LengthExploration, expected an object"),
        (lambda outcome: as_exploration_func(Spy(), outcome=outcome.as_async()), "without as_async()"),
        (
            lambda outcome: as_exploration_func(Spy(), outcome=CountdownVerifier()),
            "is CountdownVerifier; expected what",
        ),
    ],
)
def test_what_cannot_work_is_refused(wrong: Any, message: str, outcome: RewardFunction) -> None:
    with pytest.raises(VerifierError, match=message):
        wrong(outcome)


class Fails(Spy):
    """Cannot say what some responses are worth."""

    def score(self, response: str, token_count: int) -> float:
        if response == NONE:
            raise ZeroDivisionError("no steps")
        if response == WRONG:
            raise VerifierError("no key")
        return 0.5


def test_an_error_of_the_reward_is_counted_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    logged: dict[str, float] = {}
    effort = as_exploration_func(Fails(), decode=decode)
    assert call(effort, [RIGHT, NONE], log_metric=logged.__setitem__) == [0.5, None]
    assert logged["exploration/Fails/failed"] == 0.5
    assert "Fails failed and gives no score: ZeroDivisionError: no steps" in caplog.text
    with pytest.raises(VerifierError, match="no key"):
        call(effort, [WRONG])


def test_an_error_of_a_reward_that_is_asked_once_fails_all() -> None:
    class Fails(Many):
        def score_many(self, responses: Sequence[str], token_counts: Sequence[int]) -> Any:
            raise ConnectionError("no judge")

    assert call(as_exploration_func(Fails([]), decode=decode), [RIGHT, NONE]) == [None, None]


class Many(Spy):
    """Answers for all at once."""

    def __init__(self, scores: Any) -> None:
        super().__init__()
        self.scores = scores

    def score_many(self, responses: Sequence[str], token_counts: Sequence[int]) -> Any:
        self.seen.append((list(responses), list(token_counts)))
        return self.scores


def test_a_reward_that_can_is_asked_once_for_those_that_matter(outcome: RewardFunction) -> None:
    many = Many([0.25, None])
    effort = as_exploration_func(many, outcome=outcome, decode=decode)
    completions, columns = [RIGHT, NONE, WRONG, RIGHT], {"answer": [REFERENCE] * 3 + ["damaged"]}
    call(outcome, completions, **columns)
    logged: dict[str, float] = {}
    assert call(effort, completions, log_metric=logged.__setitem__) == [0.25, 0.0, None, None]
    assert many.seen == [([RIGHT, WRONG], [4, 6])]
    assert logged == {"exploration/Many/gated": 0.25, "exploration/Many/failed": 0.25}


class Measured(Many):
    """Tells of its last call."""

    def metrics(self) -> dict[str, float]:
        return {"asked": float(len(self.seen[-1][0]))}


def test_what_a_reward_tells_of_its_last_call_is_logged_also_for_nothing(outcome: RewardFunction) -> None:
    # Every rank must log the same keys, and the numbers of an earlier call must not come again.
    measured = Measured([0.25])
    effort = as_exploration_func(measured, outcome=outcome, decode=decode)
    logged: dict[str, float] = {}
    call(outcome, [RIGHT], answer=[REFERENCE])
    assert call(effort, [RIGHT], log_metric=logged.__setitem__) == [0.25]
    assert logged["exploration/Measured/asked"] == 1.0
    measured.scores = []
    call(outcome, [NONE], answer=[REFERENCE])
    assert call(effort, [NONE], log_metric=logged.__setitem__) == [0.0]
    assert logged["exploration/Measured/asked"] == 0.0


@pytest.mark.parametrize("score", [1.5, -0.1, math.nan, math.inf, "0.5", True, [0.5], object()])
def test_a_score_that_is_none_is_refused_by_name(score: Any) -> None:
    with pytest.raises(VerifierError, match=r"Many gave the score .*a number in \[0, 1\], or None"):
        call(as_exploration_func(Many([score]), decode=decode), [RIGHT])


def test_scores_of_another_number_are_refused() -> None:
    with pytest.raises(VerifierError, match=r"Many\.score_many returned 1 scores for 2 responses"):
        call(as_exploration_func(Many([0.5]), decode=decode), [RIGHT, WRONG])


@pytest.mark.parametrize("completion", [None, b"bytes", 7])
def test_what_is_no_text_is_left_out(completion: Any) -> None:
    verdicts = as_reward_func(ByCommand(), pool=False)
    for tied in (verdicts, None):
        verdicts(["p"] * 2, ["7", completion], [[1]] * 2, answer=["7", "7"])
        effort = as_exploration_func(LengthExploration(2), outcome=tied)
        assert effort(["p"] * 2, ["7", completion], [[1], [1]]) == [0.5, None]


def test_tokens_before_the_answer() -> None:
    assert tokens_before_answer(RIGHT, letters(RIGHT), decode) == 4
    assert tokens_before_answer(NONE, letters(NONE), decode) == 8
    # a template that hides the thinking from the message does not hide its tokens
    assert tokens_before_answer(RIGHT, letters("thinking" + RIGHT), decode) == 12
    # without a decoder: the share of characters, rounded down; 4 of 19 characters
    assert tokens_before_answer(RIGHT, list(range(10)), None) == 2
    assert tokens_before_answer(NONE, list(range(10)), None) == 10
    assert tokens_before_answer(r"\boxed{3}", list(range(10)), None) == 0
    assert answer_start(RIGHT) == 4
    assert tokens_before(None, [1, 2, 3], decode) == 3


def test_the_decoder_may_be_a_bound_tokenizer() -> None:
    from rltoolkit.embedded.models import countdown_tokenizer

    tokenizer = countdown_tokenizer()
    read = functools.partial(tokenizer.decode, skip_special_tokens=True)
    text = "5+3=8,8*2=16?16 ok\n\\boxed{(5+3)*2}"
    ids = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    steps = as_exploration_func(DistinctSteps(2), decode=read)
    length = as_exploration_func(LengthExploration(32), decode=read)
    assert steps(["p"], [text], [ids]) == [0.5]
    expected = 1 + len(tokenizer.encode(text.partition("\\boxed")[0], add_special_tokens=False))
    assert length(["p"], [text], [ids]) == [expected / 32]
    assert pickle.loads(pickle.dumps(length))(["p"], [text], [ids]) == [expected / 32]
