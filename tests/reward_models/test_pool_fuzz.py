"""Random misbehaviour: one verdict per answer, in order, of the right kind, and no process left over."""

import random
import threading
from collections import Counter
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_verifiers import ByCommand

from reward_models import Outcome, Verdict, VerifierPool, as_reward_func

# What a response commands, and the outcome that it must become.
DEEDS: tuple[tuple[Any, Outcome], ...] = (
    ("raise trouble", Outcome.ERROR),
    ("number", Outcome.ERROR),
    ("unprintable", Outcome.ERROR),
    ("deep", Outcome.ERROR),
    ("exit 3", Outcome.ERROR),
    ("leave", Outcome.ERROR),
    ("signal SIGKILL", Outcome.ERROR),
    ("signal SIGABRT", Outcome.ERROR),
    ("signal SIGXCPU", Outcome.TIMEOUT),
    ("sleep 60", Outcome.TIMEOUT),
    ("sleep 0.02", Outcome.CORRECT),
    ("length", Outcome.CORRECT),
    (None, Outcome.ERROR),
    (b"bytes", Outcome.ERROR),
    ("\ud800\x00" * 1000, Outcome.WRONG),
)


def batch(random_: random.Random, size: int, share: float) -> tuple[list[Any], list[Any], list[Outcome]]:
    """Responses, references and expected outcomes; a `share` of them misbehaves."""
    responses, references, expected = [], [], []
    for row in range(size):
        response, outcome = random_.choice(DEEDS) if random_.random() < share else (f"row {row}", Outcome.CORRECT)
        reference: Any = f"row {row}"
        if random_.random() < 0.05:
            reference, outcome = None, Outcome.BAD_REFERENCE
        responses.append(response)
        references.append(reference)
        expected.append(outcome)
    return responses, references, expected


def assert_in_order(responses: list[Any], verdicts: list[Verdict], expected: list[Outcome]) -> None:
    assert [verdict.outcome for verdict in verdicts] == expected
    for response, verdict in zip(responses, verdicts, strict=True):
        if isinstance(response, str) and response.startswith("row") and verdict.score is not None:
            assert verdict.extracted == response


@pytest.mark.parametrize("seed", range(3))
def test_order_and_kind_survive_any_misbehaviour(seed: int) -> None:
    random_ = random.Random(seed)
    this = psutil.Process()
    before = {child.pid for child in this.children(recursive=True)}
    total: Counter[Outcome] = Counter()
    with VerifierPool(ByCommand(), workers=2, timeout_s=2.0) as pool:
        for share in (0.0, 0.2, 0.5):
            responses, references, expected = batch(random_, 20, share)
            assert_in_order(responses, pool.check_many(responses, references), expected)
            total.update(expected)
            children = [child for child in this.children() if child.pid not in before]
            assert len(children) == 2
        assert pool.counts == total
    assert {child.pid for child in this.children(recursive=True)} <= before


def test_threads_do_not_get_each_others_verdicts() -> None:
    failures: list[str] = []

    def work(pool: VerifierPool, seed: int) -> None:
        random_ = random.Random(seed)
        for _ in range(3):
            responses, references, expected = batch(random_, 15, 0.15)
            responses = [f"{text} {seed}" if str(text).startswith("row") else text for text in responses]
            references = [f"{text} {seed}" if text is not None else None for text in references]
            try:
                assert_in_order(responses, pool.check_many(responses, references), expected)
            except AssertionError as failure:
                failures.append(str(failure))

    with VerifierPool(ByCommand(), workers=2, timeout_s=2.0) as pool:
        threads = [threading.Thread(target=work, args=(pool, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=200)
        assert not any(thread.is_alive() for thread in threads)
        assert pool.counts.total() == 4 * 3 * 15
    assert failures == []


class Returns:
    """Returns or raises what it was given, whatever that is."""

    def __init__(self, deeds: list[Any]) -> None:
        self.deeds = deeds

    def check(self, response: str, reference: str) -> Any:
        deed = self.deeds[int(response)]
        if isinstance(deed, Exception):
            raise deed
        return deed


DETAILS = st.text(max_size=5)
VERDICTS = st.one_of(
    st.builds(Verdict.correct, DETAILS, DETAILS),
    st.builds(Verdict.wrong, DETAILS),
    st.builds(Verdict.no_answer, DETAILS),
    st.builds(Verdict.bad_reference, DETAILS),
    st.builds(Verdict.timeout, DETAILS),
)
NO_VERDICTS = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(max_size=3),
    st.builds(lambda: Verdict.correct(10**5000)),  # type: ignore[arg-type]
    st.sampled_from(
        [ValueError("bad"), RecursionError(), MemoryError(), LookupError(10**5000), StopIteration(), OSError(5)]
    ),
)


@given(st.lists(st.one_of(VERDICTS, NO_VERDICTS), max_size=12))
def test_the_adapter_has_one_score_for_every_completion(deeds: list[Any]) -> None:
    function = as_reward_func(Returns(deeds), pool=False)
    logged: dict[str, float] = {}
    rows = [str(row) for row in range(len(deeds))]
    scores = function(prompts=rows, completions=rows, answer=rows, log_metric=logged.__setitem__)
    wanted = [deed.outcome if isinstance(deed, Verdict) and deed.extracted != 10**5000 else "error" for deed in deeds]
    assert [verdict.outcome for verdict in function.last_verdicts] == wanted
    assert scores == [verdict.score for verdict in function.last_verdicts]
    assert set(scores) <= {None, 0.0, 1.0}
    assert function.counts == Counter(wanted)
    assert not deeds or sum(logged.values()) == pytest.approx(1.0, abs=1e-12)
