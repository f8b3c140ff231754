"""From a recipe and its trainer's config to the numbers that memory depends on."""

from __future__ import annotations

from typing import Any, Literal

from rltoolkit.check.batches import Batches
from rltoolkit.check.machine import gpu_reasons
from rltoolkit.check.memory import LoraPlan, MemoryEstimate, Sharding, TrainPlan
from rltoolkit.check.model import DTYPE_BYTES, ModelFacts
from rltoolkit.check.model_shape import ModelShape
from rltoolkit.recipe.accelerate_config import read_accelerate_config
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.schema import RolloutSection
from rltoolkit.rollout.engine import IN_PROCESS_GPU_SHARE

# Sections of transformers' optimiser names that change the size of the states.
_OPTIMISERS = ("paged_adamw_8bit", "adamw_8bit", "adafactor", "sgd")


def batches_of(loaded: LoadedRecipe, config: Any) -> Batches:
    """The factors of the batches; `config` is a GRPOConfig made here, where only one process is known."""
    processes = loaded.recipe.launch.processes
    steps = int(config.steps_per_generation)
    if loaded.recipe.train.get("generation_batch_size") is not None:
        steps = max(1, int(config.generation_batch_size) // (int(config.per_device_train_batch_size) * processes))
    return Batches(
        per_device=int(config.per_device_train_batch_size),
        processes=processes,
        accumulation=int(config.gradient_accumulation_steps),
        steps_per_generation=steps,
        num_generations=int(config.num_generations),
        epochs_per_rollout=int(config.num_iterations),
    )


def rlsp_plan(
    loaded: LoadedRecipe, config: Any, facts: ModelFacts, critic: ModelShape | None, longest_prompt: int | None
) -> TrainPlan:
    """The plan of an RLSP run; prompts count with their longest, or with the recipe's limit.

    `critic` is the shape of the model that a separate critic starts from.
    """
    from rltoolkit.rollout.transformers_backend import BATCH_TOKENS

    rollout, batches = loaded.recipe.rollout, batches_of(loaded, config)
    prompt = min(longest_prompt or rollout.max_prompt_tokens, rollout.max_prompt_tokens)
    return TrainPlan(
        micro_batch=batches.per_device,
        prompt_tokens=prompt,
        new_tokens=rollout.max_new_tokens,
        rollout_rows=batches.per_device * batches.steps_per_generation,
        accumulates=batches.accumulation > 1,
        critic=critic if config.critic == "separate" else None,
        critic_kind=config.critic,
        critic_rank=int(config.critic_lora_r),
        reference=float(config.kl_coef) > 0,
        generates=rollout.backend == "transformers",
        generation_batch_tokens=BATCH_TOKENS,
        **_common(loaded, config, facts),
    )


def sft_plan(loaded: LoadedRecipe, config: Any, facts: ModelFacts, longest: int | None) -> TrainPlan:
    """The plan of a supervised stage."""
    limit = config.max_length
    length = min(longest or limit or 1024, limit or longest or 1024)
    return TrainPlan(
        micro_batch=int(config.per_device_train_batch_size),
        prompt_tokens=0,
        new_tokens=int(length),
        rollout_rows=0,
        accumulates=int(config.gradient_accumulation_steps) > 1,
        reference=False,
        generates=False,
        scores=False,
        **_common(loaded, config, facts),
    )


def table(estimate: MemoryEstimate) -> list[str]:
    """The estimate as lines, largest item first, and the moments of a step."""
    width = max(len(item.name) for item in estimate.items)
    items = sorted(estimate.items, key=lambda item: -item.gibibytes)
    lines = [f"{item.name:<{width}}  {item.gibibytes:9.3f} GiB  ({', '.join(item.phases)})" for item in items]
    sums = ", ".join(f"{phase} {estimate.phase_gib(phase):.3f}" for phase in estimate.phases)
    return [*lines, f"sums: {sums}", f"peak: {estimate.peak_gib:.3f} GiB per process, in {estimate.peak_phase}"]


def beside_the_trainer(rollout: RolloutSection, device: str) -> list[str]:
    """What a rollout backend takes of the machine beside the trainer, as lines; transformers is in the estimate."""
    engine = rollout.engine
    if rollout.backend == "trl-vllm":
        return ["vLLM takes train.vllm_gpu_memory_utilization of each GPU beside this, unless it runs elsewhere"]
    if rollout.backend == "vllm" and device == "cpu":
        return [f"vLLM takes its own copy of the weights and {engine.cpu_cache_gib} GiB for its cache beside this"]
    if rollout.backend == "vllm":
        share = IN_PROCESS_GPU_SHARE if engine.gpu_memory_utilization is None else engine.gpu_memory_utilization
        text = f"vLLM takes {share:.0%} of each GPU beside this"
        return [f"{text}, given back while training" if engine.sleep else text]
    if rollout.backend == "vllm-server":
        return ["vLLM servers on this machine take their memory beside this"]
    return []


def _common(loaded: LoadedRecipe, config: Any, facts: ModelFacts) -> dict[str, Any]:
    model = loaded.recipe.model
    dtype = model.dtype if model.dtype != "auto" else facts.stored_dtype or "float32"
    weight_bytes = DTYPE_BYTES.get(dtype, 4)
    lora = None if model.lora is None else LoraPlan(model.lora.r, model.lora.target_modules)
    return {
        "weight_bytes": weight_bytes,
        "autocast": bool(config.bf16 or config.fp16) and weight_bytes == 4,
        "gradient_checkpointing": bool(config.gradient_checkpointing),
        "optimiser": optimiser_of(str(getattr(config.optim, "value", config.optim))),
        "lora": lora,
        "quantization": model.quantization,
        "processes": loaded.recipe.launch.processes,
        "sharding": _sharding(loaded),
        "device": _device(loaded),
    }


def optimiser_of(name: str) -> str:
    """The kind of optimiser, as far as memory goes; unknown ones count like AdamW."""
    return next((kind for kind in _OPTIMISERS if name.startswith(kind)), "adamw_8bit" if "8bit" in name else "adamw")


def _sharding(loaded: LoadedRecipe) -> Sharding:
    launch = loaded.recipe.launch
    if launch.accelerate_config is not None:
        sharding = read_accelerate_config(launch.accelerate_config, loaded.path).sharding
        if sharding in ("zero1", "zero2", "zero3", "fsdp"):
            return sharding  # type: ignore[return-value]
    return "ddp" if launch.processes > 1 else "none"


def _device(loaded: LoadedRecipe) -> Literal["cpu", "cuda"]:
    """Where the recipe is meant to run: what needs a GPU is counted for one, here or not."""
    return "cuda" if gpu_reasons(loaded) else "cpu"
