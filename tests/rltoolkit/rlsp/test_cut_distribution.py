"""Samples of a cut distribution are not corrected for being another program's: they are refused before any is drawn."""

import copy

import pytest

from rltoolkit.errors import ModelError
from rltoolkit.rlsp import RLSPConfig
from rltoolkit.rlsp.correction import cut_distribution
from rltoolkit.rollout.transformers_backend import TransformersBackend

CUTS = {"top_p": 0.9, "top_k": 5, "min_p": 0.1}


@pytest.mark.parametrize("name", CUTS)
def test_each_filter_is_named_with_its_value(name):
    options = {"top_p": 1.0, "top_k": 0, "min_p": None}
    assert cut_distribution(**options) is None
    assert cut_distribution(1, None, 0.0) is None
    assert f"{name} is {CUTS[name]}" in cut_distribution(**options | {name: CUTS[name]})


@pytest.mark.parametrize("name", CUTS)
def test_the_options_refuse_filters_with_vllm_unless_corrections_are_off(tmp_path, name):
    options = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, name: CUTS[name]}
    with pytest.raises(ValueError, match=rf"{name} is {CUTS[name]}.*vllm_importance_sampling_correction off"):
        RLSPConfig(**options, use_vllm=True)
    RLSPConfig(**options, use_vllm=True, vllm_importance_sampling_correction=False)
    RLSPConfig(**options)  # TRL samples from the trained module, and nothing is corrected


def short(completion_ids, **_):
    return [1.0 - len(ids) / 8 for ids in completion_ids]


def test_a_backend_elsewhere_is_not_asked_for_samples_that_cannot_be_corrected(make_trainer, policy):
    backend = TransformersBackend(copy.deepcopy(policy), eos_token_ids=[2], pad_token_id=0)
    trainer = make_trainer(outcome=short, top_p=0.9)
    trainer.rollout_backend = backend
    with pytest.raises(ModelError, match=r"top_p is 0\.9 while another program samples"):
        trainer.train()


def test_the_trained_module_itself_may_be_cut(make_trainer):
    trainer = make_trainer(outcome=short, top_p=0.9, max_steps=1)
    trainer.rollout_backend = TransformersBackend(trainer.model, eos_token_ids=[2], pad_token_id=0)
    trainer.train()
    assert trainer.state.global_step == 1
