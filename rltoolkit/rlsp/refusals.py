"""Combinations of models, rewards and launchers that RLSPTrainer refuses before it starts."""

from typing import Any

from peft import PeftModel
from torch import nn

from reward_models.exploration import DistinctSteps, LengthExploration
from rltoolkit.errors import ModelError
from rltoolkit.rlsp.config import RLSPConfig

__all__ = ["refuse_two_critics", "refuse_unread_sampling", "refuse_what_cannot_work"]


def refuse_two_critics(critic: nn.Module | None, args: RLSPConfig) -> None:
    """A module of the user and a choice in the config cannot both hold; "separate" is the default, and no choice."""
    if critic is not None and (args.critic != "separate" or args.critic_model_name_or_path is not None):
        choice = args.critic_model_name_or_path or repr(args.critic)
        raise ModelError(
            f"a critic is given as a module ({type(critic).__name__}), and the config asks for {choice}; give one of "
            "the two"
        )


def refuse_unread_sampling(args: RLSPConfig) -> None:
    """Raise ModelError for options of sampling that TRL reads where it samples, and a rollout backend does not."""
    given = [] if args.repetition_penalty == 1.0 else [f"repetition_penalty is {args.repetition_penalty}"]
    given += [f"generation_kwargs is {args.generation_kwargs}"] if args.generation_kwargs else []
    if given:
        raise ModelError(
            f"{', '.join(given)} while a rollout_backend samples, which takes neither; remove it, or leave "
            "rollout_backend unset, so that TRL samples"
        )


def refuse_what_cannot_work(model: Any, exploration: Any, args: RLSPConfig) -> None:
    """Raise ModelError for models, rewards and launchers with which a training would fail, or mean something else."""
    if isinstance(model, PeftModel):
        raise ModelError("the model already has an adapter; pass the base model, and the adapter's peft_config")
    if args.paper_compat and isinstance(exploration, LengthExploration | DistinctSteps):
        raise ModelError(
            f"in paper mode the exploration reward is the judge's score, and {type(exploration).__name__} is none; its "
            "length term is length_constant. Pass None or a judge, or set paper_compat to False"
        )
    if args.advantage == "decoupled" and exploration is None:
        raise ModelError(
            "advantage is 'decoupled' without an exploration reward, so its stream would be empty; pass one, or set "
            "advantage to 'single'"
        )
    plugin = args.deepspeed_plugin
    stage = 0 if plugin is None else plugin.zero_stage
    if stage == 3 or args.distributed_state.distributed_type.name == "FSDP":
        name = "DeepSpeed ZeRO-3" if stage == 3 else "FSDP"
        raise ModelError(
            f"{name} shards the critic inside the model, which RLSPTrainer does not support yet; use DDP or ZeRO-1/2 "
            "(recipes/accelerate/ddp.yaml, zero2.yaml)"
        )
    if plugin is not None and args.critic_warmup_rollouts > 0 and args.weight_decay > 0:
        raise ModelError(
            f"weight_decay is {args.weight_decay} with critic_warmup_rollouts under DeepSpeed, where it would move the "
            "policy during the warm-up; set weight_decay to 0, or critic_warmup_rollouts to 0"
        )
