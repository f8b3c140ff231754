"""The critics of RLSP that need no adapter, and how a critic lives inside the trained model.

`Critic` has a backbone of its own, `SharedCritic` is a head on the policy's hidden states; rltoolkit.rlsp.critics.lora
has the third kind. All are called with ids and mask, and give a value for every position.

Inside, because the Trainer zeroes, clips, shards and saves what belongs to its model: a critic kept beside the model
but in the optimiser would pile up gradients that nobody clears.
"""

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from reward_models.value_head import ValueHead
from rltoolkit.errors import ModelError

__all__ = [
    "ActorCriticOutput",
    "Critic",
    "SharedCritic",
    "attach_critic",
    "fresh_head",
    "frozen_copy",
    "head_values",
    "hide_critic",
    "is_critics",
    "parameters_by_owner",
    "set_apart",
    "split_state",
]

CRITIC_KEY = "critic."


class Critic(nn.Module):
    """A transformer backbone and a scalar head: the value of every position."""

    def __init__(self, backbone: PreTrainedModel, *, seed: int = 0, streams: int = 1) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = fresh_head(backbone, seed, streams)
        self.positions = _learned_positions(backbone)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) ids and mask -> (B, T) or (B, T, streams) values in float32; position t has seen tokens up to t.

        Raises ModelError for more positions than the backbone has learned; those that are computed have no end.
        """
        if self.positions is not None and input_ids.size(1) > self.positions:
            raise ModelError(
                f"prompt and response have {input_ids.size(1)} tokens, and the critic's backbone has learned "
                f"{self.positions} positions; lower max_completion_length, leave longer prompts out, or give "
                "critic_model_name_or_path a model of longer texts"
            )
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        return head_values(self.head, hidden)

    @classmethod
    def from_policy(cls, policy: PreTrainedModel, *, seed: int = 0, streams: int = 1) -> "Critic":
        """Start from a copy of the policy's backbone, with a fresh head."""
        return cls(copy.deepcopy(policy.base_model), seed=seed, streams=streams)


class SharedCritic(nn.Module):
    """A head on the policy's last hidden states: values cost no forward of their own, and train the policy's trunk."""

    trains_trunk = True
    """False while the critic warms up: a gradient that moves nothing would still count where gradients are clipped."""

    def __init__(self, base: PreTrainedModel, *, seed: int = 0, streams: int = 1) -> None:
        super().__init__()
        self._policy = (base,)  # in a tuple: the policy is no part of the critic, it is the other way round
        self.head = fresh_head(base, seed, streams)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As `Critic.forward`, by a forward of the policy's backbone; the joint forward spares it."""
        backbone = self._policy[0].base_model
        hidden = backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        return self.from_hidden(hidden)

    def from_hidden(self, hidden: Tensor) -> Tensor:
        """(B, T, H) last hidden states of the policy -> (B, T) or (B, T, streams) values in float32."""
        return head_values(self.head, hidden if self.trains_trunk else hidden.detach())


def _learned_positions(backbone: PreTrainedModel) -> int | None:
    """How many positions a backbone has an embedding of; None where positions are computed, as rotary ones are."""
    most = getattr(backbone.config.get_text_config(), "max_position_embeddings", None)
    tokens = backbone.get_input_embeddings()
    tables = [m.num_embeddings for m in backbone.modules() if isinstance(m, nn.Embedding) and m is not tokens]
    # OPT's table begins with two rows that stand for no position
    return most if most is not None and any(most <= rows <= most + 2 for rows in tables) else None


def fresh_head(model: PreTrainedModel, seed: int, streams: int) -> ValueHead:
    """A value head as wide as the model, drawn from the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    return ValueHead(model.config.get_text_config().hidden_size, outputs=streams, generator=generator)


def head_values(head: ValueHead, hidden: Tensor) -> Tensor:
    """Values in float32, also under autocast: 16 bits would tell apart only some hundred values between 0 and 1."""
    with torch.autocast(hidden.device.type, enabled=False):
        values: Tensor = head(hidden).float()
    return values


@dataclass
class ActorCriticOutput(FusedCausalLMOutput):  # type: ignore[misc]
    """What the joint forward returns; a dataclass, so that wrappers for several processes see the tensors."""

    state_values: Tensor | None = None


def attach_critic(base: PreTrainedModel, critic: nn.Module) -> None:
    """Make the critic a submodule of `base` and let `base(..., return_values=True)` evaluate both in one forward.

    One forward, because two forwards and one backward are not what distributed wrappers expect. `base` must already
    have TRL's fused head; with PEFT it is the model inside the adapter. A shared critic reads the hidden states of the
    policy's own pass.
    """
    if hasattr(base, "critic"):
        raise ModelError("the model already has a submodule named critic; pass a model without one")
    base.critic = critic
    policy_forward = base.forward

    # The wrapped signature stays that of the model: `generate` checks its arguments against it.
    @functools.wraps(type(base).forward)
    def forward(self: PreTrainedModel, *args: Any, return_values: bool = False, **kwargs: Any) -> Any:
        if not return_values:
            return policy_forward(*args, **kwargs)
        if isinstance(self.critic, SharedCritic):
            with _last_hidden_states(self.base_model) as seen:
                output = policy_forward(*args, **kwargs)
            return ActorCriticOutput(**output, state_values=self.critic.from_hidden(seen[-1]))
        output = policy_forward(*args, **kwargs)
        return ActorCriticOutput(**output, state_values=self.critic(kwargs["input_ids"], kwargs["attention_mask"]))

    base.forward = MethodType(forward, base)


@contextmanager
def _last_hidden_states(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """What the backbone answers while the context is open: TRL's fused head does not hand it on."""
    seen: list[Tensor] = []
    handle = backbone.register_forward_hook(lambda _module, _args, output: seen.append(output.last_hidden_state))
    try:
        yield seen
    finally:
        handle.remove()


def hide_critic(generation: Any) -> None:
    """Keep TRL's weight sync from sending the critic to vLLM, which knows no such weights."""
    every_parameter = generation._iter_named_params

    def policy_only() -> Iterator[tuple[str, Tensor]]:
        return ((name, tensor) for name, tensor in every_parameter() if not is_critics(name))

    generation._iter_named_params = policy_only


def is_critics(name: str) -> bool:
    """Whether a parameter's name is that of the critic; with PEFT the policy's name stands before it."""
    before, found, _ = name.partition(CRITIC_KEY)
    return bool(found) and (not before or before.endswith("."))


def split_state(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a state dict of the joint model into the policy's and the critic's, the latter without its prefix."""
    policy: dict[str, Tensor] = {}
    critic: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if is_critics(name):
            critic[name.partition(CRITIC_KEY)[2]] = tensor
        else:
            policy[name] = tensor
    return policy, critic


def set_apart(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], learning_rate: float) -> None:
    """Move parameters of an optimiser into groups of their own learning rate, with what else their groups say."""
    ids = {id(p) for p in parameters}
    for group in list(optimizer.param_groups):
        moved = [p for p in group["params"] if id(p) in ids]
        group["params"] = [p for p in group["params"] if id(p) not in ids]
        if moved:
            rest = {key: value for key, value in group.items() if key not in ("params", "lr")}
            optimizer.add_param_group({**rest, "params": moved, "lr": learning_rate})


def frozen_copy(policy: PreTrainedModel) -> PreTrainedModel:
    """A copy that is never trained: the reference of the KL term."""
    reference = copy.deepcopy(policy)
    reference.requires_grad_(False)
    return reference.eval()


def parameters_by_owner(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters of the policy and of the critic inside it."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    critic = split_state(dict(named))[1]  # same rule for names as in saved files
    critic_ids = {id(p) for p in critic.values()}
    return [p for p in named.values() if id(p) not in critic_ids], [p for p in named.values() if id(p) in critic_ids]
