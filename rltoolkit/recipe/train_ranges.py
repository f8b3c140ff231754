"""What a value of `train:` must satisfy, and which keys of the config classes belong to other sections.

Both tables are plain data, so that the recipe's own checks can suggest these keys without importing a
trainer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """low <= value <= high; an open end leaves its bound out. `also` is one more value (TRL's "off")."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    also: float | None = None

    def holds(self, value: float) -> bool:
        """Whether the value lies in the range (not a number never does)."""
        if self.also is not None and value == self.also:
            return True
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        parts = []
        if self.low > -math.inf:
            parts.append(f"{'>' if self.low_open else '>='} {self.low:g}")
        if self.high < math.inf:
            parts.append(f"{'<' if self.high_open else '<='} {self.high:g}")
        text = "a number " + " and ".join(parts) if parts else "a number"
        return text + (f" (or {self.also:g} for off)" if self.also is not None else "")


POSITIVE = Range(low=0.0, low_open=True, high_open=True)
NOT_NEGATIVE = Range(low=0.0, high_open=True)
FRACTION = Range(low=0.0, high=1.0)
AT_LEAST_ONE = Range(low=1.0, high_open=True)
BELOW_ONE = Range(low=0.0, high=1.0, high_open=True)

RANGES: dict[str, Range] = {
    # transformers.TrainingArguments
    "learning_rate": POSITIVE,
    "num_train_epochs": POSITIVE,
    "max_steps": Range(low=1.0, also=-1.0),
    "per_device_train_batch_size": AT_LEAST_ONE,
    "per_device_eval_batch_size": AT_LEAST_ONE,
    "gradient_accumulation_steps": AT_LEAST_ONE,
    "weight_decay": NOT_NEGATIVE,
    "adam_beta1": BELOW_ONE,
    "adam_beta2": BELOW_ONE,
    "adam_epsilon": POSITIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "warmup_steps": NOT_NEGATIVE,
    "logging_steps": POSITIVE,
    "save_steps": POSITIVE,
    "save_total_limit": AT_LEAST_ONE,
    "dataloader_num_workers": NOT_NEGATIVE,
    "label_smoothing_factor": BELOW_ONE,
    # trl.SFTConfig
    "max_length": AT_LEAST_ONE,
    # trl.GRPOConfig
    "num_generations": AT_LEAST_ONE,
    "num_iterations": AT_LEAST_ONE,
    "steps_per_generation": AT_LEAST_ONE,
    "generation_batch_size": AT_LEAST_ONE,
    "epsilon": Range(low=0.0, high=1.0, low_open=True, high_open=True),
    "vllm_gpu_memory_utilization": Range(low=0.0, high=1.0, low_open=True),
    "vllm_tensor_parallel_size": AT_LEAST_ONE,
    # rltoolkit.rlsp.RLSPConfig
    "gamma": FRACTION,
    "gae_lambda": FRACTION,
    "exploration_gamma": FRACTION,
    "exploration_gae_lambda": FRACTION,
    "exploration_weight": NOT_NEGATIVE,
    "exploration_weight_end": NOT_NEGATIVE,
    "outcome_floor": Range(low=0.0, high=1.0, low_open=True),
    "outcome_rate_decay": Range(low=0.0, high=0.999),
    "exploration_weight_step": POSITIVE,
    "exploration_weight_min": POSITIVE,
    "exploration_weight_max": POSITIVE,
    "kl_coef": NOT_NEGATIVE,
    "vf_coef": POSITIVE,
    "cliprange_value": POSITIVE,
    "critic_learning_rate": NOT_NEGATIVE,
    "critic_lora_r": AT_LEAST_ONE,
    "critic_lora_alpha": POSITIVE,
    "critic_warmup_rollouts": NOT_NEGATIVE,
    "curriculum_visits": AT_LEAST_ONE,
    "curriculum_weight": FRACTION,
    "curriculum_revisit": Range(low=2.0, high_open=True),
    "micro_batch_tokens": AT_LEAST_ONE,
    "alpha": FRACTION,
    "no_answer_penalty": NOT_NEGATIVE,
    "length_constant": NOT_NEGATIVE,
    "reward_clip": POSITIVE,
}

# Fields of the config classes that a recipe sets elsewhere: the key to use instead.
OWNED_ELSEWHERE: dict[str, str] = {
    "temperature": "rollout.temperature",
    "top_p": "rollout.top_p",
    "top_k": "rollout.top_k",
    "min_p": "rollout.min_p",
    "max_completion_length": "rollout.max_new_tokens",
    "max_prompt_length": "rollout.max_prompt_tokens",
    "use_vllm": "rollout.backend",
    "seed": "seed",
    "data_seed": "seed",
    "output_dir": "output_dir",
    "model_init_kwargs": "model.dtype, model.quantization or model.attn_implementation",
    "beta": "train.kl_coef",
    "reward_weights": "train.alpha",
    "resume_from_checkpoint": "output_dir (the same recipe with the same output_dir continues its run)",
    "eval_strategy": "eval.every_steps",
    "eval_steps": "eval.every_steps",
    "do_train": "method",
    "do_eval": "eval.tasks",
    "do_predict": "eval.tasks",
}
