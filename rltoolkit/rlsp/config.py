"""The options of RLSPTrainer."""

import math
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any

from trl import GRPOConfig

from rltoolkit.errors import DataError
from rltoolkit.recipe.schema import RolloutSection
from rltoolkit.rlsp.correction import RATIO_MODES, cut_distribution
from rltoolkit.rlsp.stream_options import ADVANTAGES, CONTROLS, stream_problems

__all__ = ["RLSPConfig", "sampling_options"]


@dataclass
class RLSPConfig(GRPOConfig):
    """Options of RLSPTrainer: those of TRL's GRPOConfig, and what PPO with a critic needs beside them.

    `num_iterations` are the PPO epochs, `epsilon` is the policy's clip, `learning_rate` the policy's. One rollout has
    `per_device_train_batch_size * processes * steps_per_generation` responses, one update uses
    `per_device_train_batch_size * processes * gradient_accumulation_steps` of them. Defaults are those of the released
    code (Ye et al., arXiv 2502.06773) where it has one. Raises ValueError for values out of range and for options of
    GRPO that mean nothing here.
    """

    num_generations: int | None = field(
        default=1,
        metadata={"help": "Responses per prompt. One is enough: the baseline is the critic, not a group."},
    )
    num_generations_eval: int | None = field(default=1, metadata={"help": "Responses per prompt in evaluation."})
    gamma: float = field(default=1.0, metadata={"help": "Discount, in [0, 1]."})
    gae_lambda: float = field(default=0.95, metadata={"help": "Decay of generalised advantage estimation, in [0, 1]."})
    kl_coef: float = field(
        default=0.05,
        metadata={"help": "Weight of the k1 estimate of KL to the start model inside the reward."},
    )
    vf_coef: float = field(default=1.0, metadata={"help": "Weight of the value loss beside the policy loss."})
    cliprange_value: float = field(default=0.2, metadata={"help": "Clip of the value's change per rollout."})
    advantage: str = field(
        default="single",
        metadata={
            "help": "single: one scalar, as the paper has it; decoupled: a stream each for correctness and exploration."
        },
    )
    exploration_gamma: float | None = field(
        default=None, metadata={"help": "Discount of the exploration stream (decoupled); null takes gamma."}
    )
    exploration_gae_lambda: float | None = field(
        default=None, metadata={"help": "Decay of the exploration stream (decoupled); null takes gae_lambda."}
    )
    normalize_streams: bool = field(
        default=True,
        metadata={
            "help": "Whiten each stream before they are added, weighted by alpha and 1 - alpha (decoupled); without, "
            "weight 1 gives the single advantage where values and discounts agree."
        },
    )
    exploration_control: str = field(
        default="constant",
        metadata={
            "help": "How exploration is weighted beside correctness (decoupled). constant: exploration_weight; linear: "
            "from there to exploration_weight_end over the rollouts; floor: up while the smoothed outcome rate is "
            "above outcome_floor, down while it is below; best: the same with outcome_floor as a share of the best "
            "smoothed rate so far."
        },
    )
    exploration_weight: float = field(
        default=1.0, metadata={"help": "Weight of the exploration stream, or what it starts from (decoupled)."}
    )
    exploration_weight_end: float = field(
        default=0.0, metadata={"help": "Weight of the exploration stream in the last rollout (control linear)."}
    )
    outcome_floor: float | None = field(
        default=None,
        metadata={"help": "Outcome rate (control floor), or share of the best one (control best), in (0, 1]."},
    )
    outcome_rate_decay: float = field(
        default=0.8,
        metadata={"help": "Smoothing of the outcome rate over rollouts, up to 0.999; 0 takes each as it is."},
    )
    exploration_weight_step: float = field(
        default=10.0,
        metadata={"help": "How fast the constraint moves the weight: log(weight) gains step * (rate - floor)."},
    )
    exploration_weight_min: float = field(
        default=0.1, metadata={"help": "Lowest weight that the constraint may choose."}
    )
    exploration_weight_max: float = field(
        default=2.0, metadata={"help": "Highest weight that the constraint may choose."}
    )
    critic: str = field(
        default="separate",
        metadata={
            "help": "separate: a backbone of its own; lora: an adapter on the policy's frozen base, which needs LoRA; "
            "shared: a head on the policy's hidden states."
        },
    )
    critic_learning_rate: float = field(default=2e-6, metadata={"help": "Peak learning rate of the critic."})
    critic_model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "What the critic starts from: a model, a reward model, or the folder of a critic that a run has "
            "saved (for lora and shared only that); null takes the policy's own backbone."
        },
    )
    critic_lora_r: int = field(default=16, metadata={"help": "Rank of the critic's adapter (critic: lora)."})
    critic_lora_alpha: float = field(
        default=32.0, metadata={"help": "Scale of the critic's adapter, divided by its rank (critic: lora)."}
    )
    critic_warmup_rollouts: int = field(
        default=4,
        metadata={"help": "For so many rollouts only the critic learns; the policy stays bit-identical."},
    )
    micro_batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Tokens, padding included, that one forward and backward pass may have; null: as many as the plain "
            "minibatch, shared among policy and critic."
        },
    )
    prompt_curriculum: str = field(
        default="off",
        metadata={
            "help": "What becomes of prompts that were solved always, or never, over their last visits. off: nothing; "
            "skip: other prompts take their places in an epoch; down_weight: the policy learns less from them."
        },
    )
    curriculum_visits: int = field(
        default=4, metadata={"help": "Visits (rollouts) of a prompt over which it must be solved always, or never."}
    )
    curriculum_weight: float = field(
        default=0.25, metadata={"help": "Weight of such a prompt in the policy's loss (curriculum down_weight)."}
    )
    curriculum_revisit: int = field(
        default=4, metadata={"help": "A skipped prompt comes back in one of so many epochs (curriculum skip)."}
    )
    whiten_advantages: bool = field(
        default=True, metadata={"help": "Whiten advantages over all response tokens of all processes."}
    )
    alpha: float = field(
        default=0.8,
        metadata={"help": "Weight of the outcome; exploration gets 1 - alpha (paper mode: of the judge)."},
    )
    no_answer_penalty: float = field(
        default=0.5, metadata={"help": "Subtracted from a response without a readable answer (safe mode)."}
    )
    paper_compat: bool = field(
        default=False,
        metadata={"help": "Use the released reward (first box, -C/L, clip) in place of the bounded, gated one."},
    )
    length_constant: float = field(default=1000.0, metadata={"help": "C of the released length term (paper mode)."})
    reward_clip: float = field(default=10.0, metadata={"help": "Bound of the released reward (paper mode)."})
    vllm_importance_sampling_mode: str = field(
        default="token_truncate",
        metadata={
            "help": "What keeps the importance weights of samples of another program within bounds: token_truncate, "
            "token_mask, sequence_truncate or sequence_mask (TRL's default, which drops whole responses)."
        },
    )
    loss_type: str = field(
        default="dapo",
        metadata={"help": "Only 'dapo': losses are means over the tokens of the whole minibatch."},
    )
    beta: float = field(default=0.0, metadata={"help": "Not used: KL is part of the reward, see kl_coef."})

    def __post_init__(self) -> None:
        """Check the ranges; let one response per prompt through, which GRPO's own check refuses."""
        _check(self)
        wanted = self.num_generations
        if wanted == 1:
            self.num_generations = _stand_in_group(self)
        super().__post_init__()
        self.num_generations = wanted
        if self.micro_steps_per_rollout % self.gradient_accumulation_steps:
            raise ValueError(
                f"RLSPConfig: gradient_accumulation_steps is {self.gradient_accumulation_steps}, which does not divide "
                f"steps_per_generation * num_iterations = {self.micro_steps_per_rollout}; an update would mix rollouts"
            )

    @property
    def micro_steps_per_rollout(self) -> int:
        """Forward and backward passes between two rollouts, on each process."""
        return int(self.steps_per_generation * self.num_iterations)

    @property
    def prompts_per_rollout(self) -> int:
        """Prompts that one rollout takes, over all processes."""
        return int(self.generation_batch_size // (self.num_generations or 1))

    @property
    def streams(self) -> int:
        """Values per position that the critic gives: one per advantage stream."""
        return 2 if self.advantage == "decoupled" else 1

    def require_prompts(self, count: int) -> None:
        """Raise DataError where the training set has fewer prompts than one rollout takes."""
        if count < self.prompts_per_rollout:
            raise DataError(
                f"the training set has {count} prompts, and one rollout takes {self.prompts_per_rollout}; give more "
                "prompts, or lower steps_per_generation or per_device_train_batch_size"
            )

    def rollouts_begun(self, global_step: int) -> int:
        """How many rollouts lie fully behind after `global_step` optimiser steps."""
        return int(global_step * self.gradient_accumulation_steps // self.micro_steps_per_rollout)

    def progress_at(self, global_step: int, max_steps: int) -> float:
        """Where the rollout after `global_step` optimiser steps stands in the training: 0 the first, 1 the last."""
        return self.rollouts_begun(global_step) / max(1, self.rollouts_begun(max_steps - 1))


def sampling_options(rollout: RolloutSection) -> dict[str, Any]:
    """The options of RLSPConfig that a recipe keeps in its `rollout` section."""
    return {
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "top_k": rollout.top_k,
        "min_p": rollout.min_p,
        "max_completion_length": rollout.max_new_tokens,
    }


def _stand_in_group(config: RLSPConfig) -> int:
    """A group size of at least 2 that divides every possible rollout, for the time of GRPO's own check."""
    for size in (
        config.per_device_train_batch_size,
        config.generation_batch_size,
        config.steps_per_generation,
    ):
        if size is not None and size >= 2:
            return int(size)
    if config.steps_per_generation is None and config.gradient_accumulation_steps >= 2:
        return int(config.gradient_accumulation_steps)
    raise ValueError(
        "a rollout would have one response per process, too few to whiten advantages; raise "
        "per_device_train_batch_size or steps_per_generation to at least 2"
    )


# name -> (lowest, highest, whether the lowest itself is allowed)
_RANGES: dict[str, tuple[float, float, bool]] = {
    "gamma": (0, 1, True),
    "gae_lambda": (0, 1, True),
    "exploration_gamma": (0, 1, True),
    "exploration_gae_lambda": (0, 1, True),
    "exploration_weight": (0, math.inf, True),
    "exploration_weight_end": (0, math.inf, True),
    "outcome_floor": (0, 1, False),
    "outcome_rate_decay": (0, 0.999, True),
    "exploration_weight_step": (0, math.inf, False),
    "exploration_weight_min": (0, math.inf, False),
    "exploration_weight_max": (0, math.inf, False),
    "kl_coef": (0, math.inf, True),
    "vf_coef": (0, math.inf, False),
    "cliprange_value": (0, math.inf, False),
    "critic_learning_rate": (0, math.inf, True),
    "critic_lora_r": (1, math.inf, True),
    "critic_lora_alpha": (0, math.inf, False),
    "critic_warmup_rollouts": (0, math.inf, True),
    "curriculum_visits": (1, math.inf, True),
    "curriculum_weight": (0, 1, True),
    "curriculum_revisit": (2, math.inf, True),
    "alpha": (0, 1, True),
    "no_answer_penalty": (0, math.inf, True),
    "length_constant": (0, math.inf, True),
    "reward_clip": (0, math.inf, False),
    "num_generations": (1, math.inf, True),
    "micro_batch_tokens": (1, math.inf, True),
}


_CHOICES = {
    "advantage": ADVANTAGES,
    "critic": ("separate", "lora", "shared"),
    "exploration_control": CONTROLS,
    "prompt_curriculum": ("off", "skip", "down_weight"),
}

# option -> the choice that decides whether it is read, and the values of it that do
_READ_WITH = {
    "curriculum_visits": ("prompt_curriculum", ("skip", "down_weight")),
    "curriculum_weight": ("prompt_curriculum", ("down_weight",)),
    "curriculum_revisit": ("prompt_curriculum", ("skip",)),
    "critic_lora_r": ("critic", ("lora",)),
    "critic_lora_alpha": ("critic", ("lora",)),
}

# options of GRPO's loss and of its group advantages, which are not used here
_WITHOUT_EFFECT = (
    "delta",
    "entropy_coef",
    "importance_sampling_level",
    "multi_objective_aggregation",
    "off_policy_mask_threshold",
    "reward_weights",
    "scale_rewards",
    "top_entropy_quantile",
    "use_adaptive_entropy",
)


def _check(config: RLSPConfig) -> None:
    problems = []
    own_defaults = {field.name: field.default for field in fields(config)}
    for name, (low, high, closed) in _RANGES.items():
        value = getattr(config, name)
        if value is None and own_defaults[name] is None:
            continue
        if not _inside(value, low, high, closed):
            sign = ">=" if closed else ">"
            problems.append(
                f"{name} is {value!r}; give a number {sign} {low}" + (f" and <= {high}" if high < math.inf else "")
            )
    defaults = {field.name: field.default for field in fields(GRPOConfig)}
    for name in _WITHOUT_EFFECT:
        if getattr(config, name) != defaults[name]:
            problems.append(f"{name} is {getattr(config, name)!r}; it has no effect in RLSP, remove it")
    if config.beta != 0:
        problems.append(f"beta is {config.beta!r}; KL is part of the reward here, set kl_coef instead")
    if config.vllm_importance_sampling_mode not in RATIO_MODES:
        known = ", ".join(RATIO_MODES)
        problems.append(
            f"vllm_importance_sampling_mode is {config.vllm_importance_sampling_mode!r}; give one of {known}"
        )
    low, high = config.vllm_importance_sampling_clip_min, config.vllm_importance_sampling_clip_max
    if low is not None and high is not None and low > high:
        problems.append(
            f"vllm_importance_sampling_clip_min is {low!r}, above vllm_importance_sampling_clip_max, which is "
            f"{high!r}; swap them, or set one to null"
        )
    if config.use_vllm and config.vllm_importance_sampling_correction:
        cut = cut_distribution(config.top_p, config.top_k, config.min_p)
        problems += [cut] if cut else []
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            problems.append(f"{name} is {getattr(config, name)!r}; give one of {', '.join(choices)}")
    for name, (choice, readers) in _READ_WITH.items():
        chosen = getattr(config, choice)
        if chosen in _CHOICES[choice] and chosen not in readers and getattr(config, name) != own_defaults[name]:
            problems.append(
                f"{name} is {getattr(config, name)!r} with {choice} {chosen!r}, where it has no effect; set {choice} "
                f"to {' or '.join(readers)}, or remove it"
            )
    problems += stream_problems(config)
    if config.loss_type != "dapo":
        problems.append(f"loss_type is {config.loss_type!r}; RLSP has its own loss, leave it at 'dapo'")
    if problems:
        raise ValueError("RLSPConfig: " + "; ".join(problems))


def _inside(value: object, low: float, high: float, closed: bool) -> bool:
    if not isinstance(value, Real):
        return False
    number = float(value)
    return (low <= number if closed else low < number) and number <= high
