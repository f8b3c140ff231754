"""The reward function meets TRL's contract."""

import asyncio
import copy
import inspect
import pickle
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import psutil
import pytest
from forks import in_a_fork
from misbehaving_verifiers import ByCommand

from reward_models import (
    CountdownVerifier,
    IntegerVerifier,
    Outcome,
    Verdict,
    VerifierError,
    VerifierPool,
    as_reward_func,
)
from reward_models.reward_func import completion_text

REFERENCE = "numbers=3,5,2;target=16"
RIGHT, WRONG, NONE = r"\boxed{(3+5)*2}", r"\boxed{3}", "nothing"


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(ByCommand(), workers=1, timeout_s=5.0) as running:
        yield running


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
        (
            [
                {"role": "assistant", "content": "a"},
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            ],
            "",
        ),
        ([{"role": "assistant", "content": ({"type": "text", "text": "a"},)}], "a"),
        ([{"role": "assistant"}], ""),
        ([{"role": "tool", "content": "9"}], ""),
    ],
)
def test_completion_text(completion: Any, text: str) -> None:
    assert completion_text(completion) == text


@pytest.mark.parametrize(
    ("reference", "score"),
    [
        (7, 1.0),
        (7.0, 0.0),
        (np.int64(7), 1.0),
        (Fraction(7), 1.0),
        (8, 0.0),
        (None, None),
        (["7"], None),
        (True, None),
        (float("nan"), None),
        (np.float32("inf"), None),
        (b"7", None),
        pytest.param(10**400, 0.0, id="larger than a float"),
        pytest.param(10**5000, None, id="more digits than can be written"),
        pytest.param(Fraction(10**400, 3), 0.0, id="larger than a float, too"),
        pytest.param(Fraction(10**5000, 3), None, id="such a fraction"),
    ],
)
def test_numbers_as_references_are_their_text(reference: Any, score: float | None) -> None:
    function = as_reward_func(ByCommand(), pool=False)
    assert call(function, ["7"], answer=[reference]) == [score]
    assert function.last_verdicts[0].outcome is not Outcome.ERROR


@pytest.mark.parametrize("completion", [None, 7, b"7", ["7"], {"role": "assistant", "content": "7"}, [7]])
@pytest.mark.parametrize("pooled", [True, False])
def test_what_is_no_completion_is_an_error_of_its_row(completion: Any, pooled: bool, pool: VerifierPool) -> None:
    function = as_reward_func(ByCommand(), pool=pool if pooled else False)
    assert call(function, ["7", completion, "7"], answer=["7"] * 3) == [1.0, None, 1.0]
    assert function.last_verdicts[1].outcome is Outcome.ERROR


def test_a_missing_column_is_named_with_those_there_are() -> None:
    function = as_reward_func(CountdownVerifier(), column="gold", pool=False)
    with pytest.raises(VerifierError, match=r"no column 'gold' .*only \['answer', 'problem'\].*column=") as caught:
        call(function, [RIGHT], answer=[REFERENCE], problem=["?"])
    assert "log_metric" not in str(caught.value)


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(VerifierError, match="'answer' has 1 entries for 2 completions"):
        call(as_reward_func(CountdownVerifier(), pool=False), [RIGHT, RIGHT], answer=[REFERENCE])


@pytest.mark.parametrize(
    ("verifier", "message"),
    [("math", "the verifier is str, which has no method check"), (CountdownVerifier, "the class CountdownVerifier")],
)
def test_what_is_no_verifier_is_refused(verifier: Any, message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        as_reward_func(verifier, pool=False)


def test_a_verifier_that_leaves_does_not_end_the_trainer() -> None:
    function = as_reward_func(ByCommand(), pool=False)
    assert call(function, ["leave now", "7"], answer=["7", "7"]) == [None, 1.0]


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


def test_several_functions_share_a_pool(pool: VerifierPool) -> None:
    first, second = as_reward_func(ByCommand(), pool=pool), as_reward_func(ByCommand(), column="other", pool=pool)
    columns = {"answer": ["7", "8"], "other": ["8", "8"]}
    assert call(first, ["7", "7"], **columns) == [1.0, 0.0]
    assert call(second, ["8", "8"], **columns) == [1.0, 1.0]
    assert [v.outcome for v in first.last_verdicts] == [Outcome.CORRECT, Outcome.WRONG]


def test_a_pool_of_another_verifier_is_refused(pool: VerifierPool) -> None:
    with pytest.raises(VerifierError, match="the pool judges with ByCommand, the reward function with Countdown"):
        as_reward_func(CountdownVerifier(), pool=pool)


def test_a_pool_with_other_options_is_refused() -> None:
    with VerifierPool(IntegerVerifier(), workers=1) as pool:
        with pytest.raises(VerifierError, match="with IntegerVerifier of other options; give both the same object"):
            as_reward_func(IntegerVerifier(extraction="whole"), pool=pool)
        assert call(as_reward_func(IntegerVerifier(), pool=pool), [r"\boxed{7}"], answer=[7]) == [1.0]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda function: pickle.loads(pickle.dumps(function))])
def test_a_copy_starts_a_pool_of_the_same_settings(duplicate: Any) -> None:
    with VerifierPool(ByCommand(), workers=1, timeout_s=0.5, memory_mb=1500) as pool:
        twin = duplicate(as_reward_func(ByCommand(), column="gold", pool=pool))
        assert call(twin, ["sleep 60", "pid"], gold=["7", "7"]) == [None, 1.0]
        assert twin.last_verdicts[0].outcome is Outcome.TIMEOUT
        assert twin._started_pool() is not pool
        assert twin._started_pool().settings == pool.settings
        twin.close()
        assert pool.check("7", "7") == Verdict.correct("7")


def test_first_calls_from_several_threads_start_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[VerifierPool] = []

    class Counted(VerifierPool):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr("reward_models.pool.VerifierPool", Counted)
    function = as_reward_func(ByCommand())
    scores: list[list[float | None]] = []
    threads = [
        threading.Thread(target=lambda: scores.append(call(function, ["7", "8"], answer=["7", "7"]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    function.close()
    assert scores == [[1.0, 0.0]] * 4
    assert len(started) == 1


def test_outcomes_are_counted_over_all_calls() -> None:
    function = as_reward_func(CountdownVerifier(), pool=False)
    for _ in range(2):
        call(function, [RIGHT, NONE], answer=[REFERENCE] * 2)
    assert function.counts == {Outcome.CORRECT: 2, Outcome.NO_ANSWER: 2}


def test_two_functions_of_one_class_log_under_their_names() -> None:
    metrics: dict[str, float] = {}
    for name in ("strict", "loose"):
        function = as_reward_func(CountdownVerifier(), pool=False, name=name)
        assert function.__name__ == name
        function(["p"], [RIGHT], answer=[REFERENCE], log_metric=metrics.__setitem__)
    assert set(metrics) == {f"verdict/{name}/{outcome}" for name in ("strict", "loose") for outcome in Outcome}


def test_a_failed_call_leaves_no_verdicts_of_the_one_before() -> None:
    function = as_reward_func(CountdownVerifier(), pool=False)
    call(function, [RIGHT], answer=[REFERENCE])
    with pytest.raises(VerifierError):
        call(function, [RIGHT])
    assert (function.last_verdicts, function.last_responses) == ([], [])


def test_trl_sees_an_async_function_and_awaits_it(pool: VerifierPool) -> None:
    from trl.trainer.utils import get_callable_name, is_async_callable

    function = as_reward_func(ByCommand(), pool=pool)
    awaited = function.as_async()
    assert is_async_callable(awaited)
    assert not is_async_callable(function)
    assert get_callable_name(awaited) == get_callable_name(function) == "ByCommand"

    async def main() -> list[list[float | None]]:
        return await asyncio.gather(*(awaited(["p"] * 2, ["7", "8"], [[1]] * 2, answer=[7, 7]) for _ in range(2)))

    assert asyncio.run(main()) == [[1.0, 0.0]] * 2
    assert pickle.loads(pickle.dumps(awaited)).last_verdicts == awaited.last_verdicts
    assert (awaited.column, awaited.last_responses) == ("answer", ["7", "8"])
    assert awaited.counts == {Outcome.CORRECT: 2, Outcome.WRONG: 2}


def test_an_async_function_closes_its_pool() -> None:
    before = len(psutil.Process().children())
    awaited = as_reward_func(ByCommand()).as_async()
    assert asyncio.run(awaited(["p"], ["7"], answer=["7"])) == [1.0]
    assert len(psutil.Process().children()) == before + 2
    awaited.close()
    assert len(psutil.Process().children()) == before


def test_a_fork_does_not_wait_for_a_pool_that_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    starting, forked = threading.Event(), threading.Event()

    class Slow(VerifierPool):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            starting.set()
            assert forked.wait(60)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("reward_models.pool.VerifierPool", Slow)
    function = as_reward_func(ByCommand())
    thread = threading.Thread(target=lambda: call(function, ["7"], answer=["7"]))
    thread.start()
    assert starting.wait(60)
    assert in_a_fork(lambda: call(as_reward_func(ByCommand(), pool=False), ["7"], answer=["7"])) == "[1.0]"
    forked.set()
    thread.join(timeout=60)
    function.close()


def test_trl_sees_a_synchronous_function_with_a_name() -> None:
    function = as_reward_func(CountdownVerifier())
    assert function.__name__ == "CountdownVerifier"
    assert not inspect.iscoroutinefunction(function)
    assert not inspect.iscoroutinefunction(function.__call__)
