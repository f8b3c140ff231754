"""The private names of TRL and transformers that our trainers lean on, so that an upgrade fails here and loudly."""

import dataclasses
import inspect
from pathlib import Path

import pytest
import trl
from transformers import Trainer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.kernels import chunked_logprob
from trl.trainer import utils
from trl.trainer.utils import FusedCausalLMOutput, RepeatSampler, add_fused_lm_head

PARAMETERS = {
    (GRPOTrainer, "_calculate_rewards"): ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    (GRPOTrainer, "_generate_and_score_completions"): ["self", "inputs"],
    (GRPOTrainer, "_generate_single_turn"): [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
    (GRPOTrainer, "_compute_loss"): ["self", "model", "inputs"],
    (GRPOTrainer, "_get_train_sampler"): ["self", "dataset"],
    (GRPOTrainer, "_prepare_inputs"): ["self", "generation_batch"],
    (GRPOTrainer, "log"): ["self", "logs", "start_time"],
    (Trainer, "_save"): ["self", "output_dir", "state_dict"],
    (Trainer, "_load_from_checkpoint"): ["self", "resume_from_checkpoint", "model"],
    (Trainer, "_load_best_model"): ["self"],
    (Trainer, "_issue_warnings_after_load"): ["self", "load_result"],
    (Trainer, "create_optimizer"): ["self", "model"],
}


@pytest.mark.parametrize(("owner", "name"), PARAMETERS)
def test_overridden_methods_keep_their_parameters(owner, name):
    assert list(inspect.signature(getattr(owner, name)).parameters) == PARAMETERS[owner, name]


def test_log_probs_are_asked_for_by_position():
    parameters = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert parameters[:6] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"]


def test_sampler_parameters_and_state():
    assert {"data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed"} <= set(
        inspect.signature(RepeatSampler).parameters
    )
    sampler = RepeatSampler(list("abc"), mini_repeat_count=1, seed=3)
    assert sampler.generator.initial_seed() == 3


def test_fused_head():
    assert {"model", "temperature", "outputs"} <= set(inspect.signature(add_fused_lm_head).parameters)
    assert {"log_probs", "entropy"} <= {field.name for field in dataclasses.fields(FusedCausalLMOutput)}


def test_the_rollout_is_a_dict_with_these_keys():
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    for key in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch"):
        assert f'"{key}": ' in source
    for key in (
        "old_per_token_logps",
        "importance_sampling_ratio",
        "sampling_per_token_logps",
        "ref_per_token_logps",
        "tool_mask",
    ):
        assert f'output["{key}"]' in source
    assert "self._calculate_rewards(inputs, prompts, completions, completion_ids_list)" in source
    assert "if self.beta != 0.0:" in source  # what makes TRL compute the reference's log-probs


def test_buffers_are_shuffled_and_split_by_row():
    source = inspect.getsource(GRPOTrainer._prepare_inputs)
    assert "self.args.steps_per_generation * self.num_iterations" in source
    assert "shuffle_sequence_dict" in source
    assert hasattr(utils, "shuffle_sequence_dict")
    assert hasattr(utils, "split_tensor_dict")


def test_attributes_set_by_the_constructor():
    source = inspect.getsource(GRPOTrainer.__init__)
    for name in (
        "self.beta", "self.ref_model", "self.temperature", "self.epsilon_low", "self.epsilon_high",
        "self.shuffle_dataset", "self._metrics", "self.eos_token_ids", "self._tokenizer",
        "self.max_completion_length", "self.num_generations", "self.vllm_importance_sampling_correction",
        "self.vllm_importance_sampling_mode", "self.vllm_importance_sampling_clip_min",
        "self.vllm_importance_sampling_clip_max",
    ):  # fmt: skip
        assert f"{name} = " in source or f"{name}, " in source, name


def test_the_group_check_is_the_last_but_one_of_the_config():
    """RLSPConfig lets one response per prompt through by standing in a larger group during the check."""
    source = inspect.getsource(GRPOConfig.__post_init__)
    assert source.count("self.num_generations") == 6
    with pytest.raises(ValueError, match="at least 2 generations"):
        GRPOConfig("out", num_generations=1, use_cpu=True, bf16=False)


def test_vllm_gets_its_weights_from_one_place():
    """Read, not imported: the module needs vLLM. `hide_critic` wraps the method."""
    source = (Path(trl.__file__).parent / "generation" / "vllm_generation.py").read_text()
    assert "def _iter_named_params(self)" in source
    assert source.count("self._iter_named_params()") >= 1


def test_importance_weights_are_made_as_in_our_own_function():
    """`importance_ratio` repeats this arithmetic for other samplers; where TRL changes it, ours is to follow."""
    source = " ".join(inspect.getsource(GRPOTrainer._generate_and_score_completions).split())
    for step in (
        "per_token_logps_diff = (old_per_token_logps - sampling_per_token_logps) * mask",
        "per_token_logps_diff = torch.nan_to_num(per_token_logps_diff, nan=0.0)",
        "per_sequence_logps_diff = per_token_logps_diff.sum(dim=-1, keepdim=True)",
        "vllm_importance_sampling_ratio = torch.exp(logps_diff)",
        "torch.clamp( vllm_importance_sampling_ratio, min=self.vllm_importance_sampling_clip_min, "
        "max=self.vllm_importance_sampling_clip_max, )",
        "(vllm_importance_sampling_ratio < min_val) | ( vllm_importance_sampling_ratio > max_val )",
        "vllm_importance_sampling_ratio.masked_fill( invalid_mis_mask, value=0.0 )",
        "if sampling_per_token_logps is not None:",
    ):
        assert step in source, step
    fields = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    assert fields["vllm_importance_sampling_correction"] is True
    assert (fields["vllm_importance_sampling_clip_min"], fields["vllm_importance_sampling_clip_max"]) == (None, 3.0)


def test_names_of_the_loss_normaliser():
    source = inspect.getsource(GRPOTrainer._compute_loss)
    for name in ("self.current_gradient_accumulation_steps", "self.args.steps_per_generation", "num_items_in_batch"):
        assert name in source
    assert GRPOTrainer.compute_loss is not Trainer.compute_loss  # no second division by the accumulation steps


def test_events_of_the_training_loop():
    for event in ("on_epoch_begin", "on_pre_optimizer_step", "on_step_end"):
        assert hasattr(TrainerCallback, event)
    loop = inspect.getsource(Trainer._run_epoch)
    assert loop.index("on_pre_optimizer_step") < loop.index("self.optimizer.step()")
    assert loop.index("_clip_grad_norm") < loop.index("on_pre_optimizer_step")


def test_what_a_checkpoint_keeps_of_a_run_in_flight():
    """in_flight.py saves these and puts them back when training begins, after the Trainer has set them."""
    assert list(inspect.signature(Trainer._save_rng_state).parameters) == ["self", "output_dir"]
    assert list(inspect.signature(GRPOTrainer._load_optimizer_and_scheduler).parameters) == ["self", "checkpoint"]
    constructor = inspect.getsource(GRPOTrainer.__init__)
    for name in ("self._step = 0", "self._buffered_inputs = None"):
        assert name in constructor
    assert "self._step += 1" in inspect.getsource(GRPOTrainer.training_step)
    assert "self._step % generate_every == 0 or self._buffered_inputs is None" in inspect.getsource(
        GRPOTrainer._prepare_inputs
    )
    loop = inspect.getsource(Trainer._inner_training_loop)
    for name in ("self._tr_loss = ", "self._total_loss_scalar = ", "self._globalstep_last_logged = "):
        assert loop.index(name) < loop.index("on_train_begin") < loop.index("on_epoch_begin")
    saved = inspect.getsource(Trainer._save_checkpoint)
    assert saved.index("_save_rng_state") < saved.index("save_to_json")  # the file by which a checkpoint is complete
    epoch = inspect.getsource(Trainer._run_epoch)
    assert epoch.rindex("on_epoch_end") < epoch.rindex(
        "_maybe_log_save_evaluate"
    )  # a checkpoint can still be asked for


def test_reward_functions_are_called_with_names_and_their_failures_come_late():
    """RewardGuard takes `completions` by name, and returns None for all where its function failed."""
    source = inspect.getsource(GRPOTrainer._calculate_rewards)
    assert source.count("prompts=prompts, completions=completions, completion_ids=completion_ids_list") == 2
    assert 'reward_kwargs["log_metric"] = self._log_metric' in source
    assert list(inspect.signature(GRPOTrainer._log_metric).parameters) == ["self", "name", "value"]
    assert callable(utils.is_async_callable)


def test_old_and_reference_log_probs_are_asked_for_in_one_place():
    """`Passes.logps` answers there, and tells the policy from its reference by whether adapters are on."""
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert source.count("self._get_per_token_logps_and_entropies(") == 3
    assert source.index("old_per_token_logps, _, _ = ") < source.index("ref_per_token_logps, _, _ = ")
    assert "with use_adapter(model" in source
    assert "generate_every != 0" in source  # log-probs are left out where one update follows a rollout


def test_the_fused_head_takes_shifted_labels_of_hidden_states_as_they_are():
    """`score_labelled_only` hands it the labelled positions as one row."""
    source = inspect.getsource(add_fused_lm_head)
    assert "hidden_states = backbone_outputs.last_hidden_state\n" in source
    assert "labels = shift_labels" in source
    assert "compact = _use_triton(hidden_states.device)" in source  # where TRL does the same itself
    assert utils._use_triton is chunked_logprob._use_triton  # the same answer as ours
    assert list(inspect.signature(chunked_logprob._use_triton).parameters) == ["device"]
    assert {"log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask"} <= {
        field.name for field in dataclasses.fields(FusedCausalLMOutput)
    }


def test_a_step_makes_one_loss_and_one_backward_pass_of_it():
    """`_compute_loss` makes the backward passes of all parts but the last, unscaled, as the Trainer's is."""
    source = inspect.getsource(Trainer.training_step)
    assert source.index("self.compute_loss(model, inputs") < source.index("self.accelerator.backward(loss")
    assert GRPOTrainer.loss_is_scaled_for_ga is True
    assert "self._compute_loss(model, inputs)" in inspect.getsource(GRPOTrainer.compute_loss)
