"""How much memory a run needs on each device, item by item, from the sizes of the model and of the batches.

A pure function of numbers. Measured against real runs by benchmarks/memory_estimate.py. What is counted,
for one process:

- weights, gradients and optimiser states of the policy and of the critic, the frozen reference;
- activations of the update: what autograd keeps of one micro-batch, and the tiles of TRL's fused LM head,
which
  projects at most 4096 x 32768 logits at a time and keeps none;
- the KV cache of generation, and what reading the prompts takes.

Not counted: the process itself with its libraries, the CUDA context, fragmentation, data loading.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rltoolkit.check.model_shape import ModelShape

GIB = 1024**3
# Tiles of trl.kernels.chunked_logprob: tokens (TOKEN_CHUNK_SIZE) and vocabulary entries
# (_CHUNKED_LOGPROB_CHUNK_SIZE).
TILE_TOKENS = 4096
TILE_VOCAB = 32768
# Without Triton the backward of a tile is plain torch, in which eight tensors of its size and a mask are alive at
# two gradients are alive at once. With Triton the tile is overwritten in place.
TORCH_TILES_BACKWARD = 8.25
TORCH_TILES_FORWARD = 4
QUANTIZED_BYTES = {"4bit": 0.56, "8bit": 1.07}  # the codes, and their scales per block
OPTIMISER_BYTES = {
    "adamw": 8.0,  # two float32 moments
    "adamw_8bit": 2.0,
    "paged_adamw_8bit": 0.0,  # lives in the host's memory when the device is full
    "adafactor": 0.1,  # row and column statistics only
    "sgd": 0.0,
}

Sharding = Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp"]
CriticKind = Literal["separate", "lora", "shared"]


@dataclass(frozen=True)
class LoraPlan:
    """Adapters instead of full fine-tuning."""

    rank: int
    target_modules: str | tuple[str, ...] = "all-linear"


@dataclass(frozen=True)
class TrainPlan:
    """The numbers of a run that decide its memory, for one of its processes.

    `micro_batch` is the number of sequences in one forward and backward, `rollout_rows` the number that one
    process samples together. `weight_bytes` is per parameter; `autocast` says that mixed precision computes
    in 16 bits. `critic` is the shape of the critic's own backbone: None where there is none, because nothing has a
    critic or because it uses the policy's (`critic_kind`); `critic_rank` is that of its adapter.
    """

    micro_batch: int
    prompt_tokens: int
    new_tokens: int
    rollout_rows: int
    weight_bytes: int = 4
    autocast: bool = False
    gradient_checkpointing: bool = False
    accumulates: bool = False
    optimiser: str = "adamw"
    critic: ModelShape | None = None
    critic_kind: CriticKind = "separate"
    critic_rank: int = 16
    reference: bool = True
    lora: LoraPlan | None = None
    quantization: Literal["4bit", "8bit"] | None = None
    processes: int = 1
    sharding: Sharding = "none"
    device: Literal["cpu", "cuda"] = "cpu"
    generates: bool = True
    generation_batch_tokens: int | None = None
    scores: bool = True


@dataclass(frozen=True)
class MemoryItem:
    """One line of the estimate; `phases` are those in which the memory is held."""

    name: str
    gibibytes: float
    phases: tuple[str, ...]


@dataclass(frozen=True)
class MemoryEstimate:
    """Every item, and the largest sum over the phases."""

    items: tuple[MemoryItem, ...]

    def phase_gib(self, phase: str) -> float:
        """Memory held in one phase."""
        return sum(item.gibibytes for item in self.items if phase in item.phases)

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases of the run, in order."""
        return tuple(dict.fromkeys(phase for item in self.items for phase in item.phases))

    @property
    def peak_phase(self) -> str:
        """The phase that needs the most."""
        return max(self.phases, key=self.phase_gib)

    @property
    def peak_gib(self) -> float:
        """The most that is held at once."""
        return self.phase_gib(self.peak_phase)


def estimate_memory(shape: ModelShape, plan: TrainPlan) -> MemoryEstimate:
    """The memory of one process of a run, in the moments in which it can be highest.

    Rollout: sampling. Scoring: old log-probs, reference and values, without gradients. Forward: the activations of
    policy and critic are there. Backward: autograd has walked back through the critic, which came last, and is at
    the policy's LM head. Step: all gradients are there.
    """
    amounts = _all_states(shape, plan)
    block = {"policy": _recomputed_block(shape, plan)}
    amounts.append(_Amount("activations of the policy", _kept_activations(shape, plan), ("forward", "backward")))
    critic = shape if plan.critic_kind == "lora" else plan.critic
    if critic is not None:
        amounts.append(_Amount("activations of the critic", _kept_activations(critic, plan), ("forward",)))
        block["critic"] = _recomputed_block(critic, plan)
    amounts.append(_Amount("block that is recomputed", max(block.values()), ("forward",)))
    amounts.append(_Amount("LM head", max(_lm_head(shape, plan), block["policy"]), ("backward",)))
    if plan.generates:
        amounts.append(_Amount("KV cache", _kv_cache(shape, plan), ("rollout",)))
        amounts.append(_Amount("reading the prompts", _prefill(shape, plan), ("rollout",)))
    if plan.scores:
        amounts.append(_Amount("scoring", _scoring(shape, plan), ("scoring",)))
    return MemoryEstimate(tuple(MemoryItem(a.name, a.bytes / GIB, a.phases) for a in amounts if a.bytes > 0))


@dataclass(frozen=True)
class _Amount:
    name: str
    bytes: float
    phases: tuple[str, ...]


def _phases(plan: TrainPlan) -> tuple[str, ...]:
    first = (("rollout",) if plan.generates else ()) + (("scoring",) if plan.scores else ())
    return (*first, "forward", "backward", "step")


def _all_states(shape: ModelShape, plan: TrainPlan) -> list[_Amount]:
    """Weights, gradients and optimiser states of everything that is trained, and the reference."""
    amounts = _states("policy", _policy_parameters(shape, plan), plan)
    if plan.lora is not None:
        adapters = shape.lora_parameters(plan.lora.rank, plan.lora.target_modules)
        amounts += _states("adapters", _Trained(adapters, True), plan)
    parameters = _critic_parameters(shape, plan)
    if parameters:
        # a critic in 16 bits is trained in float32, unless DeepSpeed keeps float32 weights itself
        own = plan if plan.sharding.startswith("zero") else replace(plan, weight_bytes=4)
        amounts += _states("critic", _Trained(parameters, True), own)
    if plan.reference and plan.lora is None:
        share = plan.processes if plan.sharding in ("zero3", "fsdp") else 1
        amounts.append(_Amount("reference weights", shape.parameters * plan.weight_bytes / share, _phases(plan)))
    return amounts


def _critic_parameters(shape: ModelShape, plan: TrainPlan) -> int:
    """Parameters that the critic has to itself: a backbone, an adapter or nothing, and a head."""
    if plan.critic_kind == "shared":
        return shape.hidden
    if plan.critic_kind == "lora" and plan.lora is not None:  # it changes the layers that the policy's adapter changes
        return shape.lora_parameters(plan.critic_rank, plan.lora.target_modules) + shape.hidden
    return 0 if plan.critic is None else plan.critic.backbone_parameters + plan.critic.hidden


@dataclass(frozen=True)
class _Trained:
    """A count of parameters, and whether they are trained."""

    parameters: float
    trained: bool
    weight_bytes: float | None = None


def _policy_parameters(shape: ModelShape, plan: TrainPlan) -> _Trained:
    if plan.quantization is None:
        return _Trained(shape.parameters, plan.lora is None)
    rest = shape.parameters - shape.linear_parameters
    stored = shape.linear_parameters * QUANTIZED_BYTES[plan.quantization] + rest * plan.weight_bytes
    return _Trained(shape.parameters, False, stored / shape.parameters)


def _states(name: str, what: _Trained, plan: TrainPlan) -> list[_Amount]:
    """Weights, gradients and optimiser states, each divided by the processes that share it."""
    stored = plan.weight_bytes if what.weight_bytes is None else what.weight_bytes
    split = {"none": "", "ddp": "", "zero1": "o", "zero2": "og", "zero3": "ogw", "fsdp": "ogw"}[plan.sharding]
    share = {part: plan.processes if part in split else 1 for part in "ogw"}
    always = _phases(plan)
    amounts = [_Amount(f"{name} weights", what.parameters * stored / share["w"], always)]
    if not what.trained:
        return amounts
    gradients = what.parameters * plan.weight_bytes / share["g"]
    # Gradients are freed after a step; while micro-batches accumulate they stay.
    held: tuple[str, ...] = ("backward", "step") if name == "critic" else ("step",)
    held = ("forward", "backward", "step") if plan.accumulates else held
    amounts.append(_Amount(f"{name} gradients", gradients, held))
    if plan.sharding == "ddp":  # it reduces gradients in buckets of its own
        amounts.append(_Amount(f"{name} gradient buckets", gradients, always))
    amounts.append(_Amount(f"{name} optimiser", what.parameters * _optimiser_bytes(plan) / share["o"], always))
    return amounts


def _optimiser_bytes(plan: TrainPlan) -> float:
    """Optimiser state per parameter."""
    if plan.sharding.startswith("zero") and plan.weight_bytes == 2:
        return OPTIMISER_BYTES[plan.optimiser] + 4.0  # DeepSpeed's float32 master copy
    if plan.optimiser == "adamw":
        return 2.0 * plan.weight_bytes  # torch keeps the moments in the parameters' dtype
    return OPTIMISER_BYTES[plan.optimiser]


def _sequence(plan: TrainPlan) -> int:
    return plan.prompt_tokens + plan.new_tokens


def _block_activations(shape: ModelShape, plan: TrainPlan, tokens: int) -> float:
    """What autograd keeps of one block, in bytes.

    Per token: input, normalised input and scaled input of two norms (6 hidden); rotated queries, keys and
    values repeated to all heads, and the attention's output (4 query widths); gate, activation, up and
    product of the MLP (4 intermediate). Attention is `sdpa`, which keeps no (T, T) scores. Under autocast
    the linear layers' inputs and outputs have 16 bits and the norms stay in float32.
    """
    norms = 6 * shape.hidden
    linear = 4 * shape.query_width + 4 * shape.intermediate
    if plan.autocast:
        return tokens * (4.0 * norms + 2.0 * (linear + 2 * shape.hidden))
    wide = 4.0 if plan.weight_bytes == 4 else 2.0
    # In 16-bit models the norms still compute in float32 and keep that copy.
    return tokens * (wide * (norms + linear) + (0.0 if wide == 4.0 else 2.0 * 2 * shape.hidden))


def _kept_activations(shape: ModelShape, plan: TrainPlan) -> float:
    """What the forward of one micro-batch leaves for its backward: all blocks, or their inputs alone."""
    tokens = plan.micro_batch * _sequence(plan)
    if not plan.gradient_checkpointing:
        return shape.layers * _block_activations(shape, plan, tokens)
    width = 4.0 if plan.autocast else float(plan.weight_bytes)
    return shape.layers * tokens * shape.hidden * width


def _recomputed_block(shape: ModelShape, plan: TrainPlan) -> float:
    """With gradient checkpointing one block at a time is there in full."""
    tokens = plan.micro_batch * _sequence(plan)
    return _block_activations(shape, plan, tokens) if plan.gradient_checkpointing else 0.0


def _lm_head(shape: ModelShape, plan: TrainPlan) -> float:
    """The tiles of the backward and the float32 gradients of the hidden states and of the head's weight."""
    positions = plan.micro_batch * (_sequence(plan) if plan.device == "cpu" else plan.new_tokens)
    tile = min(positions, TILE_TOKENS) * min(shape.vocab, TILE_VOCAB) * 4.0
    tiles = TORCH_TILES_BACKWARD if plan.device == "cpu" else 1
    head_gradient = 0.0 if plan.lora is not None else shape.vocab * shape.hidden * 4.0
    return tiles * tile + positions * shape.hidden * 4.0 + head_gradient


def _scoring(shape: ModelShape, plan: TrainPlan) -> float:
    """The forward of one micro-batch without gradients: one block at work, then the head's tiles."""
    tokens = plan.micro_batch * _sequence(plan)
    tile = min(tokens, TILE_TOKENS) * min(shape.vocab, TILE_VOCAB) * 4.0
    tiles = TORCH_TILES_FORWARD if plan.device == "cpu" else 1
    return max(_block_at_work(shape, plan, tokens), tiles * tile)


def _block_at_work(shape: ModelShape, plan: TrainPlan, tokens: float) -> float:
    """The most that one block holds without gradients: residual, norm's output, three tensors of the MLP."""
    wide = 2.0 if plan.autocast or plan.weight_bytes == 2 else 4.0
    return tokens * wide * (3 * shape.hidden + 3 * shape.intermediate)


def _kv_cache(shape: ModelShape, plan: TrainPlan) -> float:
    width = 2.0 if plan.autocast or plan.weight_bytes == 2 else 4.0
    return _generation_tokens(plan) * 2 * shape.layers * shape.kv_width * width


def _prefill(shape: ModelShape, plan: TrainPlan) -> float:
    rows = _generation_tokens(plan) / _sequence(plan)
    return _block_at_work(shape, plan, rows * plan.prompt_tokens) + rows * shape.vocab * 4.0


def _generation_tokens(plan: TrainPlan) -> float:
    """Tokens that are in the cache at once, at the longest."""
    tokens = plan.rollout_rows * _sequence(plan)
    return tokens if plan.generation_batch_tokens is None else min(tokens, plan.generation_batch_tokens)
