"""RLSPTrainer and the backend it asks: when it wakes, whose weights it has, what is made of its log-probs."""

import copy
import logging
import math
from dataclasses import replace

import pytest
import torch

from rltoolkit.errors import ModelError, RolloutError
from rltoolkit.rollout.transformers_backend import TransformersBackend

RECORDED = {
    "policy/loss": [0.0551537847, -0.0458291358, -0.3059097420, 0.2094830871],
    "value/loss": [0.1100929451, 0.0696264464, 0.1663709987, 0.1255025417],
}
ORDER = ["wake", "sync", "generate", "sleep"]


def lengths_reward(completions, completion_ids, **_):
    return [1.0 - len(ids) / 8 for ids in completion_ids]


def around(model):
    return TransformersBackend(model, eos_token_ids=[2], pad_token_id=0)


class Elsewhere:
    """A sampler with weights of its own, whose log-probs are `shift` away from the policy's."""

    def __init__(self, model, shift=0.0):
        self.inner = around(copy.deepcopy(model))  # before a trainer attaches a critic to it
        self.shift = shift
        self.calls, self.versions = [], []

    def generate(self, prompts, n, sampling, seeds):
        self.calls.append("generate")
        drawn = self.inner.generate(prompts, n, sampling, seeds)
        return [[replace(s, logprobs=tuple(p - self.shift for p in s.logprobs)) for s in group] for group in drawn]

    def sync(self, source, version):
        self.calls.append("sync")
        self.versions.append(version)
        policy = {name: value for name, value in source.state_dict().items() if not name.startswith("critic.")}
        self.inner.model.load_state_dict(policy)
        self.inner.version = version

    def wake(self):
        self.calls.append("wake")

    def sleep(self):
        self.calls.append("sleep")

    def close(self):
        pass


def trained(make_trainer, policy, backend, **options):
    trainer = make_trainer(outcome=lengths_reward, model=copy.deepcopy(policy), **options)
    trainer.rollout_backend = around(trainer.model) if backend is None else backend
    trainer.train()
    return trainer


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def rollout_of(trainer, rows=4):
    trainer.model.train()
    return trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(rows)])


def test_a_backend_is_awake_only_for_the_rollout_and_has_the_weights_of_the_step(make_trainer, policy):
    backend = Elsewhere(policy)
    trained(make_trainer, policy, backend)
    assert backend.calls == ORDER * 2
    assert backend.versions == [0, 2]


def test_the_same_weights_elsewhere_train_the_same_policy(make_trainer, policy):
    here = trained(make_trainer, policy, None)
    there = trained(make_trainer, policy, Elsewhere(policy))
    for (name, mine), theirs in zip(here.model.named_parameters(), there.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=name)
    assert max(history(there, "sampling/logp_difference_max")) < 1e-5
    assert history(there, "sampling/dropped")[0] == 0


def test_the_trained_module_itself_is_not_corrected(make_trainer, policy):
    trainer = make_trainer(outcome=lengths_reward)
    trainer.rollout_backend = around(trainer.model)
    assert "importance_sampling_ratio" not in rollout_of(trainer)
    assert not [name for name in trainer._metrics["train"] if name.startswith("sampling/")]


def test_losses_with_the_trained_module_stay_what_they_were(make_trainer, policy):
    """Recorded before other samplers were corrected for; the tolerance is for other processors' rounding."""
    trainer = trained(make_trainer, policy, None)
    assert history(trainer, "policy/loss") == pytest.approx(RECORDED["policy/loss"], abs=1e-5)
    assert history(trainer, "value/loss") == pytest.approx(RECORDED["value/loss"], rel=1e-4)


def test_the_difference_is_measured_on_response_tokens(make_trainer, policy):
    backend = Elsewhere(policy, shift=0.05)
    trainer = make_trainer(outcome=lengths_reward)
    trainer.rollout_backend = backend
    rollout_of(trainer)
    assert trainer._metrics["train"]["sampling/logp_difference_mean"] == [pytest.approx(0.05, abs=1e-5)]
    assert trainer._metrics["train"]["sampling/logp_difference_max"] == [pytest.approx(0.05, abs=1e-5)]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("token_truncate", lambda lengths: math.exp(0.5)), ("sequence_truncate", lambda lengths: (lengths * 0.5).exp())],
)
def test_ratios_follow_the_options_of_trl(make_trainer, policy, mode, expected):
    backend = Elsewhere(policy, shift=0.5)
    trainer = make_trainer(
        outcome=lengths_reward, vllm_importance_sampling_mode=mode, vllm_importance_sampling_clip_max=1e9
    )
    trainer.rollout_backend = backend
    rollout = rollout_of(trainer)
    mask = rollout["completion_mask"].bool()
    wanted = torch.as_tensor(expected(mask.sum(1, keepdim=True)), dtype=torch.float32)
    ratio = rollout["importance_sampling_ratio"].expand(mask.shape)[mask]
    torch.testing.assert_close(ratio, wanted.expand(mask.shape)[mask], rtol=1e-4, atol=1e-5)


def test_responses_far_from_the_policy_do_not_train_it_and_are_counted(make_trainer, policy):
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    mask = {"vllm_importance_sampling_mode": "sequence_mask"}
    trainer = trained(make_trainer, policy, Elsewhere(policy, shift=20.0), max_steps=2, **mask)
    assert history(trainer, "sampling/dropped") == [1.0]
    for name, value in trainer.model.state_dict().items():
        if not name.startswith("critic."):
            assert torch.equal(value, before[name]), name


def test_without_correction_only_the_log_tells(make_trainer, policy):
    backend = Elsewhere(policy, shift=20.0)
    trainer = make_trainer(outcome=lengths_reward, vllm_importance_sampling_correction=False)
    trainer.rollout_backend = backend
    assert "importance_sampling_ratio" not in rollout_of(trainer)
    assert trainer._metrics["train"]["sampling/logp_difference_mean"] == [pytest.approx(20.0, abs=1e-3)]


def test_a_large_difference_is_warned_of_once(make_trainer, policy, caplog):
    with caplog.at_level(logging.WARNING, logger="rltoolkit.rlsp.trainer"):
        trained(make_trainer, policy, Elsewhere(policy, shift=0.2))
    told = [record.message for record in caplog.records if "nats per token" in record.message]
    assert len(told) == 1
    assert "0.200 nats" in told[0]
    assert "rollout.engine.dtype" in told[0]


def test_a_small_difference_is_not_warned_of(make_trainer, policy, caplog):
    with caplog.at_level(logging.WARNING, logger="rltoolkit.rlsp.trainer"):
        trained(make_trainer, policy, Elsewhere(policy, shift=0.02))
    assert not [record for record in caplog.records if "nats per token" in record.message]


def test_a_sampler_without_log_probs_is_no_perfect_match(make_trainer, policy, caplog):
    with caplog.at_level(logging.WARNING, logger="rltoolkit.rlsp.sampler_gap"):
        trainer = trained(make_trainer, policy, Elsewhere(policy, shift=math.nan))
    assert history(trainer, "sampling/without_logp") == [1.0, 1.0]
    assert history(trainer, "sampling/logp_difference_mean") == []
    (told,) = [record.message for record in caplog.records if "gave no log-prob" in record.message]
    assert "100% of the response tokens" in told
    assert history(trained(make_trainer, policy, Elsewhere(policy)), "sampling/without_logp") == [0.0, 0.0]


@pytest.mark.parametrize("options", [{"repetition_penalty": 1.7}, {"generation_kwargs": {"num_beams": 2}}])
def test_options_that_no_backend_reads_are_refused_before_a_sample_is_drawn(make_trainer, policy, options):
    backend = Elsewhere(policy)
    with pytest.raises(ModelError, match=f"{next(iter(options))} is .*rollout_backend"):
        trained(make_trainer, policy, backend, **options)
    assert "generate" not in backend.calls
    with pytest.raises(ModelError, match="which takes neither"):
        trained(make_trainer, policy, None, **options)


def test_a_rollout_that_fails_leaves_the_backend_asleep(make_trainer, policy):
    class Broken(Elsewhere):
        def generate(self, *_):
            raise RolloutError("no server left")

    backend = Broken(policy)
    trainer = make_trainer(outcome=lengths_reward)
    trainer.rollout_backend = backend
    with pytest.raises(RolloutError, match="no server left"):
        trainer.train()
    assert backend.calls == ["wake", "sync", "sleep"]


def test_an_unknown_mode_is_refused_before_anything_else(make_trainer):
    with pytest.raises(ValueError, match="vllm_importance_sampling_mode is 'token'; give one of token_truncate"):
        make_trainer(vllm_importance_sampling_mode="token")


def test_the_weights_are_logged_and_the_loss_is_the_one_that_is_optimised(make_trainer, policy):
    """Twice the probability everywhere, clipped to 1.5: the policy's part of the loss is 1.5 times as large."""
    one = {"max_steps": 1, "critic_warmup_rollouts": 0, "vllm_importance_sampling_mode": "token_truncate"}
    shifted = Elsewhere(policy, shift=math.log(2.0))
    plain = trained(make_trainer, policy, Elsewhere(policy), **one)
    weighted = trained(make_trainer, policy, shifted, **one, vllm_importance_sampling_clip_max=1.5)
    for name in ("mean", "min", "max"):
        assert history(plain, f"sampling/weight_{name}")[0] == pytest.approx(1.0, abs=1e-5)
        assert history(weighted, f"sampling/weight_{name}")[0] == pytest.approx(1.5)
    assert (history(plain, "sampling/clipped")[0], history(weighted, "sampling/clipped")[0]) == (0.0, 1.0)
    mine, theirs = history(plain, "policy/loss")[0], history(weighted, "policy/loss")[0]
    assert abs(mine) > 1e-3
    assert theirs == pytest.approx(1.5 * mine, rel=1e-4)


def test_many_dropped_tokens_are_warned_of_once(make_trainer, policy, caplog):
    with caplog.at_level(logging.WARNING, logger="rltoolkit.rlsp.trainer"):
        trained(make_trainer, policy, Elsewhere(policy, shift=20.0), vllm_importance_sampling_mode="sequence_mask")
    (told,) = [record.message for record in caplog.records if "sampling/dropped, mode" in record.message]
    assert "100% of the response tokens" in told
    assert "token_truncate" in told


def test_bounds_that_cross_are_refused(make_trainer):
    with pytest.raises(ValueError, match=r"clip_min is 2\.0, above vllm_importance_sampling_clip_max, which is 1\.5"):
        make_trainer(vllm_importance_sampling_clip_min=2.0, vllm_importance_sampling_clip_max=1.5)
