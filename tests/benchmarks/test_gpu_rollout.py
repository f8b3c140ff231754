"""The engines of benchmarks/gpu/rollout.py on a CPU: each row ends where it should, and only drawing is timed."""

import contextlib
import time

import pytest

from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.types import SamplingParams


@pytest.mark.parametrize("batch_tokens", [1 << 20, 150])
def test_the_hook_ends_each_row_at_its_limit(script, accounting, model_of, batch_tokens):
    """In one batch that loses rows as they finish, and in several."""
    work, model = accounting.make_work(accounting.SIZES["tiny"]), model_of()
    backend = TransformersBackend(model, eos_token_ids=[2], pad_token_id=0, batch_tokens=batch_tokens)
    model.register_forward_hook(script.EndAtLimit(work, 2), with_kwargs=True)
    answers = backend.generate(work.prompts, 1, SamplingParams(max_new_tokens=max(work.limits)), range(16))
    assert [len(answer.token_ids) for (answer,) in answers] == work.limits
    assert all(answer.token_ids.index(2) == len(answer.token_ids) - 1 for (answer,) in answers)


def test_an_engine_of_other_lengths_gives_no_speed(script, accounting):
    work = accounting.Work(prompts=[[1], [2]], limits=[2, 4])
    assert script.timed(script.Engine(lambda seed: [2, 4]), 0, work) >= 0
    with pytest.raises(RuntimeError, match="drew 6 tokens"):
        script.timed(script.Engine(lambda seed: [4, 2]), 0, work)


def test_a_session_is_outside_the_clock(script, accounting):
    work, slow = accounting.Work(prompts=[[1]], limits=[1]), 0.3

    @contextlib.contextmanager
    def session():
        time.sleep(slow)
        yield
        time.sleep(slow)

    assert script.timed(script.Engine(lambda seed: [1], session), 0, work) < slow


def test_the_lengths_of_generate_are_read_from_its_output(script, accounting, model_of, monkeypatch):
    """So that rows which end too late or too early are noticed."""
    work, model = accounting.make_work(accounting.SIZES["tiny"]), model_of()
    with script.generate_engine(model, work, None) as engine:
        assert engine.draw(0) == work.limits
    late = script.RowLimits.__call__
    monkeypatch.setattr(script.RowLimits, "__call__", lambda self, ids, scores, **_: late(self, ids[:, 1:], scores))
    with script.generate_engine(model, work, None) as engine:
        most = max(work.limits)
        assert engine.draw(0) == [min(limit + 1, most) for limit in work.limits]
