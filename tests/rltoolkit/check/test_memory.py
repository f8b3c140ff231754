"""The memory estimate: exact where bytes can be counted, and right in what changes it."""

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rltoolkit.check.memory import GIB, LoraPlan, MemoryEstimate, TrainPlan, estimate_memory
from rltoolkit.check.model_shape import ModelShape

SHAPE = ModelShape(hidden=64, intermediate=160, layers=3, heads=4, kv_heads=2, head_dim=16, vocab=100)
PLAN = TrainPlan(micro_batch=4, prompt_tokens=10, new_tokens=30, rollout_rows=8, critic=SHAPE)


def items(plan: TrainPlan, shape: ModelShape = SHAPE) -> dict[str, float]:
    """Bytes by item."""
    return {item.name: item.gibibytes * GIB for item in estimate_memory(shape, plan).items}


def test_states_are_counted_in_bytes() -> None:
    found = items(PLAN)
    parameters, backbone = SHAPE.parameters, SHAPE.backbone_parameters + SHAPE.hidden
    assert found["policy weights"] == found["policy gradients"] == pytest.approx(4 * parameters)
    assert found["policy optimiser"] == pytest.approx(8 * parameters)
    assert found["critic weights"] == pytest.approx(4 * backbone)
    assert found["critic optimiser"] == pytest.approx(8 * backbone)
    assert found["reference weights"] == pytest.approx(4 * parameters)
    # keys and values, 8 rows of 40 tokens, 3 layers, 2 heads of 16, 4 bytes
    assert found["KV cache"] == 2 * 8 * 40 * 3 * 32 * 4


def test_kept_activations_are_those_that_autograd_saves() -> None:
    """Against the tensors that a real backbone saves for its backward pass, without weights and views of one memory."""
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
    )
    backbone = LlamaForCausalLM(config).model
    weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 100, (4, 40), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = backbone(input_ids=ids, use_cache=False).last_hidden_state
    estimated = items(PLAN)["activations of the policy"]
    assert output.requires_grad
    assert estimated == pytest.approx(sum(saved.values()), rel=0.1)


def test_the_peak_is_the_largest_phase() -> None:
    estimate = estimate_memory(SHAPE, PLAN)
    assert isinstance(estimate, MemoryEstimate)
    assert estimate.phases == ("rollout", "scoring", "forward", "backward", "step")
    assert estimate.peak_gib == max(estimate.phase_gib(phase) for phase in estimate.phases)
    assert estimate.phase_gib("rollout") < estimate.peak_gib


def test_what_is_not_there_takes_nothing() -> None:
    assert "reference weights" not in items(replace(PLAN, reference=False))
    without_critic = items(replace(PLAN, critic=None))
    assert not [name for name in without_critic if "critic" in name]
    supervised = items(replace(PLAN, critic=None, reference=False, generates=False, scores=False))
    assert set(supervised) == {
        "policy weights",
        "policy gradients",
        "policy optimiser",
        "activations of the policy",
        "LM head",
    }


def test_checkpointing_keeps_one_input_a_block() -> None:
    found = items(replace(PLAN, gradient_checkpointing=True))
    assert found["activations of the policy"] == 3 * 4 * 40 * 64 * 4
    assert found["block that is recomputed"] == pytest.approx(items(PLAN)["activations of the policy"] / 3)


def test_lora_trains_little_and_needs_no_reference() -> None:
    found = items(replace(PLAN, lora=LoraPlan(rank=2)))
    assert "policy gradients" not in found
    assert "reference weights" not in found
    assert found["adapters weights"] == pytest.approx(4 * SHAPE.lora_parameters(2, "all-linear"))
    assert found["policy weights"] == items(PLAN)["policy weights"]
    quantized = items(replace(PLAN, lora=LoraPlan(rank=2), quantization="4bit"))
    assert quantized["policy weights"] < 0.5 * found["policy weights"]


@pytest.mark.parametrize(
    ("sharding", "weights", "gradients", "optimiser"),
    [("ddp", 1, 1, 1), ("zero1", 1, 1, 4), ("zero2", 1, 4, 4), ("zero3", 4, 4, 4), ("fsdp", 4, 4, 4)],
)
def test_sharding_divides(sharding: str, weights: int, gradients: int, optimiser: int) -> None:
    found, whole = items(replace(PLAN, processes=4, sharding=sharding)), items(PLAN)
    assert whole["policy weights"] / found["policy weights"] == pytest.approx(weights)
    assert whole["policy gradients"] / found["policy gradients"] == pytest.approx(gradients)
    assert whole["policy optimiser"] / found["policy optimiser"] == pytest.approx(optimiser)
    assert ("policy gradient buckets" in found) is (sharding == "ddp")


def test_sixteen_bits_halve_and_deepspeed_keeps_a_master_copy() -> None:
    half, whole = items(replace(PLAN, weight_bytes=2)), items(PLAN)
    assert half["policy weights"] == whole["policy weights"] / 2
    assert half["KV cache"] == whole["KV cache"] / 2
    zero = items(replace(PLAN, weight_bytes=2, sharding="zero2", processes=1))
    assert zero["policy optimiser"] == pytest.approx(12 * SHAPE.parameters)


def test_micro_batches_that_accumulate_hold_gradients_in_the_forward() -> None:
    alone = estimate_memory(SHAPE, PLAN).phase_gib("forward")
    together = estimate_memory(SHAPE, replace(PLAN, accumulates=True)).phase_gib("forward")
    gradients = items(PLAN)["policy gradients"] + items(PLAN)["critic gradients"]
    assert (together - alone) * GIB == pytest.approx(gradients)


def test_generation_is_bounded_by_its_token_budget() -> None:
    assert items(replace(PLAN, generation_batch_tokens=80))["KV cache"] == items(PLAN)["KV cache"] / 4


def test_a_critic_on_the_policys_weights_counts_what_is_its_own() -> None:
    lora = LoraPlan(8, ("q_proj", "v_proj"))
    adapter = items(replace(PLAN, critic=None, critic_kind="lora", critic_rank=4, lora=lora, reference=False))
    own = 3 * 4 * ((64 + 64) + (64 + 32)) + 64  # 3 layers, rank 4, what goes into q_proj and v_proj and out; the head
    assert adapter["critic weights"] == pytest.approx(4 * own)
    assert adapter["critic optimiser"] == pytest.approx(8 * own)
    assert adapter["activations of the critic"] == adapter["activations of the policy"]
    head = items(replace(PLAN, critic=None, critic_kind="shared"))
    assert head["critic weights"] == pytest.approx(4 * 64)
    assert "activations of the critic" not in head


def test_the_kinds_of_critic_are_ordered() -> None:
    plan = replace(PLAN, lora=LoraPlan(8), reference=False)
    separate = estimate_memory(SHAPE, plan).peak_gib
    lora = estimate_memory(SHAPE, replace(plan, critic=None, critic_kind="lora")).peak_gib
    shared = estimate_memory(SHAPE, replace(plan, critic=None, critic_kind="shared")).peak_gib
    assert shared < lora < separate
