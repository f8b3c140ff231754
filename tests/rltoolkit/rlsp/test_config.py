"""RLSPConfig: one response per prompt, ranges, and the arithmetic of rollouts."""

import pytest

from rltoolkit.rlsp import RLSPConfig

CPU = {"use_cpu": True, "bf16": False, "report_to": []}


def config(tmp_path, **options):
    return RLSPConfig(output_dir=str(tmp_path), **CPU, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"per_device_train_batch_size": 3, "steps_per_generation": 5},
        {"per_device_train_batch_size": 1, "steps_per_generation": 3},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 7},
        {"per_device_train_batch_size": 1, "generation_batch_size": 9},
        {"per_device_train_batch_size": 5, "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 3},
    ],
)
def test_one_response_per_prompt_whatever_the_batch(tmp_path, options):
    built = config(tmp_path, **options)
    assert built.num_generations == 1
    assert built.generation_batch_size % built.per_device_train_batch_size == 0


def test_groups_are_allowed_too(tmp_path):
    assert config(tmp_path, num_generations=4, per_device_train_batch_size=8).num_generations == 4


def test_a_rollout_of_one_response_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one response per process"):
        config(tmp_path, per_device_train_batch_size=1)


def test_all_mistakes_are_named_together(tmp_path):
    with pytest.raises(ValueError, match=r"gamma is 1\.5") as caught:
        config(tmp_path, gamma=1.5, gae_lambda=-0.1, alpha=2, beta=0.04, loss_type="grpo")
    for part in ("gae_lambda is -0.1", "alpha is 2", "set kl_coef instead", "RLSP has its own loss"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", ["0.9", [0.9], None, float("nan")])
@pytest.mark.parametrize("name", ["gamma", "exploration_weight"])
def test_what_is_no_number_is_named_with_its_option(tmp_path, name, value):
    options = {"advantage": "decoupled", "exploration_control": "best", "outcome_floor": 0.9, name: value}
    with pytest.raises(ValueError, match=rf"^RLSPConfig: {name} is \S+; give a number >= 0( and <= 1)?$"):
        config(tmp_path, **options)


@pytest.mark.parametrize(
    ("misspelt", "known", "options"),
    [
        ({"advantage": "decopled"}, "single, decoupled", {"exploration_weight": 0.5, "exploration_control": "best"}),
        ({"exploration_control": "bst"}, "constant, linear, floor, best", {"outcome_floor": 0.9}),
        ({"exploration_control": "lin"}, "constant, linear, floor, best", {"exploration_weight_end": 0.1}),
        ({"prompt_curriculum": "skp"}, "off, skip, down_weight", {"curriculum_visits": 8}),
        ({"critic": "lra"}, "separate, lora, shared", {"critic_lora_r": 8}),
    ],
)
def test_a_misspelt_choice_says_nothing_of_the_options_that_go_with_it(tmp_path, misspelt, known, options):
    ((name, value),) = misspelt.items()
    with pytest.raises(ValueError, match=f"^RLSPConfig: {name} is '{value}'; give one of {known}$"):
        config(tmp_path, **{"advantage": "decoupled", **options, **misspelt})


def test_options_of_grpo_without_an_effect_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"entropy_coef is 0\.01; it has no effect in RLSP"):
        config(tmp_path, entropy_coef=0.01)


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("name", ["critic_lora_r", "critic_lora_alpha"])
def test_options_of_an_adapter_need_the_critic_that_is_one(tmp_path, name, critic):
    with pytest.raises(
        ValueError, match=f"{name} is 8 with critic '{critic}', where it has no effect; set critic to l"
    ):
        config(tmp_path, critic=critic, **{name: 8})
    assert getattr(config(tmp_path, critic="lora", **{name: 8}), name) == 8


def test_samples_of_another_program_get_truncated_weights_unless_told_otherwise(tmp_path):
    assert config(tmp_path).vllm_importance_sampling_mode == "token_truncate"
    told = config(tmp_path, vllm_importance_sampling_mode="sequence_mask")
    assert told.vllm_importance_sampling_mode == "sequence_mask"


def test_an_update_that_would_mix_rollouts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gradient_accumulation_steps is 3, which does not divide"):
        config(tmp_path, gradient_accumulation_steps=3, steps_per_generation=4)


@pytest.mark.parametrize(("step", "rollouts"), [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2)])
def test_rollouts_behind_a_step(tmp_path, step, rollouts):
    built = config(
        tmp_path, per_device_train_batch_size=4, steps_per_generation=4, gradient_accumulation_steps=2, num_iterations=2
    )
    assert built.micro_steps_per_rollout == 8
    assert built.rollouts_begun(step) == rollouts
