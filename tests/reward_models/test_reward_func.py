"""The reward function meets TRL's contract."""

import inspect
import pickle
from typing import Any

import psutil
import pytest
from misbehaving_verifiers import ByCommand

from reward_models import CountdownVerifier, Outcome, Verdict, VerifierError, VerifierPool, as_reward_func
from reward_models.reward_func import completion_text

REFERENCE = "numbers=3,5,2;target=16"
RIGHT, WRONG, NONE = r"\boxed{(3+5)*2}", r"\boxed{3}", "nothing"


def call(function: Any, completions: list[Any], **columns: Any) -> list[float | None]:
    """Call as TRL's GRPOTrainer does: by keyword, with ids, every column, the state and the two loggers."""
    extra: dict[str, Any] = {
        "trainer_state": object(),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
    }
    result: list[float | None] = function(
        prompts=["p"] * len(completions),
        completions=completions,
        completion_ids=[[1]] * len(completions),
        **columns,
        **extra,
    )
    return result


def test_scores_and_verdicts_in_order() -> None:
    function = as_reward_func(CountdownVerifier(), pool=False)
    scores = call(function, [RIGHT, WRONG, NONE, RIGHT], answer=[REFERENCE] * 3 + ["broken"], other=[0] * 4)
    assert scores == [1.0, 0.0, 0.0, None]
    assert [v.outcome for v in function.last_verdicts] == [
        Outcome.CORRECT,
        Outcome.WRONG,
        Outcome.NO_ANSWER,
        Outcome.BAD_REFERENCE,
    ]


def test_conversations_and_plain_text_are_judged_alike() -> None:
    function = as_reward_func(CountdownVerifier(), pool=False, column="gold")
    chat = [[{"role": "assistant", "content": text}] for text in (RIGHT, WRONG)]
    assert (
        call(function, chat, gold=[REFERENCE] * 2) == call(function, [RIGHT, WRONG], gold=[REFERENCE] * 2) == [1.0, 0.0]
    )


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ([], ""),
        ([{"role": "assistant", "content": "a"}], "a"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}]}], "ab"),
        (
            [
                {"role": "assistant", "content": "call"},
                {"role": "tool", "content": "9"},
                {"role": "assistant", "content": "b"},
            ],
            "b",
        ),
        ([{"role": "assistant", "content": "a"}, {"role": "tool", "content": "9"}], "a"),
    ],
)
def test_completion_text(completion: Any, text: str) -> None:
    assert completion_text(completion) == text


def test_numbers_as_references_are_their_text() -> None:
    function = as_reward_func(ByCommand(), pool=False)
    assert call(function, ["7", "0.5", "7", "7", "7"], answer=[7, 0.5, None, ["7"], True]) == [
        1.0,
        1.0,
        None,
        None,
        None,
    ]


def test_a_missing_column_is_named_with_those_there_are() -> None:
    function = as_reward_func(CountdownVerifier(), column="gold", pool=False)
    with pytest.raises(VerifierError, match=r"no column 'gold' .*only \['answer', 'problem'\].*column=") as caught:
        call(function, [RIGHT], answer=[REFERENCE], problem=["?"])
    assert "log_metric" not in str(caught.value)


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(VerifierError, match="'answer' has 1 entries for 2 completions"):
        call(as_reward_func(CountdownVerifier(), pool=False), [RIGHT, RIGHT], answer=[REFERENCE])


def test_what_is_no_verifier_is_refused() -> None:
    verifier: Any = "math"
    with pytest.raises(VerifierError, match="the verifier is str, which has no method check"):
        as_reward_func(verifier)


def test_outcomes_are_logged_all_of_them_and_sum_to_one() -> None:
    metrics: dict[str, float] = {}
    table: dict[str, list[Any]] = {}
    function = as_reward_func(CountdownVerifier(), pool=False)
    function(
        ["p"] * 4,
        [RIGHT, RIGHT, WRONG, NONE],
        answer=[REFERENCE] * 4,
        log_metric=metrics.__setitem__,
        log_extra=table.__setitem__,
    )
    assert set(metrics) == {f"verdict/{outcome}" for outcome in Outcome}
    assert metrics["verdict/correct"] == 0.5
    assert metrics["verdict/timeout"] == 0.0
    assert sum(metrics.values()) == pytest.approx(1.0, abs=1e-12)
    assert table["CountdownVerifier/verdict"] == ["correct", "correct", "wrong", "no_answer"]
    assert table["CountdownVerifier/extracted"] == ["(3+5)*2", "(3+5)*2", "3", None]


def test_a_failure_in_process_is_an_outcome() -> None:
    function = as_reward_func(ByCommand(), pool=False)
    assert call(function, ["raise trouble", "7"], answer=["7", "7"]) == [None, 1.0]
    assert function.last_verdicts[0].outcome is Outcome.ERROR


def test_a_pool_of_its_own_starts_late_and_closes() -> None:
    before = len(psutil.Process().children())
    function = as_reward_func(ByCommand())
    assert len(psutil.Process().children()) == before
    assert call(function, ["7", "exit 1"], answer=["7", "7"]) == [1.0, None]
    assert len(psutil.Process().children()) == before + 2
    copy = pickle.loads(pickle.dumps(function))
    assert [v.outcome for v in copy.last_verdicts] == [Outcome.CORRECT, Outcome.ERROR]
    function.close()
    assert len(psutil.Process().children()) == before
    assert call(copy, ["7"], answer=["7"]) == [1.0]
    copy.close()
    assert call(function, ["7"], answer=["7"]) == [1.0]
    function.close()
    assert len(psutil.Process().children()) == before


def test_a_pool_that_is_given_is_used_and_left_open() -> None:
    with VerifierPool(ByCommand(), workers=1, timeout_s=0.5) as pool:
        function = as_reward_func(ByCommand(), pool=pool)
        assert call(function, ["sleep 60", "7"], answer=["7", "7"]) == [None, 1.0]
        assert function.last_verdicts[0].outcome is Outcome.TIMEOUT
        function.close()
        assert pool.check("7", "7") == Verdict.correct("7")


def test_an_in_process_function_stays_one_when_it_travels() -> None:
    copy = pickle.loads(pickle.dumps(as_reward_func(CountdownVerifier(), column="gold", pool=False)))
    before = len(psutil.Process().children())
    assert call(copy, [RIGHT], gold=[REFERENCE]) == [1.0]
    assert len(psutil.Process().children()) == before


def test_trl_sees_a_synchronous_function_with_a_name() -> None:
    function = as_reward_func(CountdownVerifier())
    assert function.__name__ == "CountdownVerifier"
    assert not inspect.iscoroutinefunction(function)
    assert not inspect.iscoroutinefunction(function.__call__)
