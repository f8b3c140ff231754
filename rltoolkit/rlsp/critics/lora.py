"""The critic as an adapter of its own on the policy's frozen base: values of another model at the price of a few ranks.

PEFT could hold a second adapter beside the policy's, but what it does to the first would befall this one too: turning
adapters off for the reference freezes both, and merging, saving and syncing have to be told apart by name. So the
critic's matrices live in the critic, and stand in for the policy's adapter only while the critic is asked.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from rltoolkit.errors import ModelError
from rltoolkit.rlsp.critics.critic import fresh_head, head_values
from rltoolkit.rollout.adapters import plain_name
from rltoolkit.rollout.weights import trained_below_adapter

__all__ = ["LoraCritic"]


class LoraCritic(nn.Module):
    """Low-rank changes of the layers that the policy's adapter changes, and a head; the base is the policy's own.

    `base` is the model inside PEFT. Matrices and head are float32, the base keeps its dtype. Fresh, the critic sees
    what the start model saw: the second matrix of every change is zero. Raises ModelError where the policy has no
    adapter, or trains weights of the base beside it, which the critic would have to share.
    """

    def __init__(
        self, base: PreTrainedModel, *, r: int = 16, alpha: float = 32, seed: int = 0, streams: int = 1
    ) -> None:
        super().__init__()
        wrapped = _wrapped_layers(base)
        generator = torch.Generator().manual_seed(seed)
        changes = {name: _change_of(layer, r, alpha / r, generator) for name, layer in wrapped.items()}
        self.alpha = alpha
        # A ModuleDict takes no dots; and so no layer here has a name that PEFT could take for one of its targets.
        self.adapter = nn.ModuleDict(
            {n.replace(".", "/"): change for n, change in changes.items() if change is not None}
        )
        self.head = fresh_head(base, seed, streams).to(base.get_output_embeddings().weight.device)
        # In tuples: policy and layers are no part of the critic, it is the other way round.
        self._policy = (base,)
        self._layers = tuple((layer, changes[name]) for name, layer in wrapped.items())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) ids and mask -> (B, T) or (B, T, streams) values in float32; position t has seen tokens up to t."""
        backbone = self._policy[0].base_model
        with self._in_place_of_the_policy(backbone):
            hidden = backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        return head_values(self.head, hidden)

    @contextmanager
    def _in_place_of_the_policy(self, backbone: nn.Module) -> Iterator[None]:
        """Let the wrapped layers answer with the critic's changes."""
        layers = {id(layer): _Replacement(layer, _changed(layer, change)) for layer, change in self._layers}
        blocks = [block for block in backbone.modules() if _CHECKPOINT in block.__dict__]
        with _replaced(_CALL, layers.values()), _replaced(_CHECKPOINT, [_again(block, layers) for block in blocks]):
            yield


class LowRankChange(nn.Module):
    """scale * up(down(x)), which is added to what a frozen linear layer answers."""

    def __init__(self, inputs: int, outputs: int, r: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Parameter(torch.empty(r, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, r))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5), generator=generator)  # as PEFT starts its A

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.down.dtype)
        return nn.functional.linear(nn.functional.linear(x, self.down), self.up) * self.scale


class _Replacement(NamedTuple):
    """A function that stands in the place of one of a module's for a while."""

    module: nn.Module
    function: Callable[..., Any]


_CALL = "forward"
_CHECKPOINT = "_gradient_checkpointing_func"


@contextmanager
def _replaced(name: str, replacements: Iterable[_Replacement]) -> Iterator[None]:
    """Set attributes of modules, and give them back as they were; what the class defines shows again."""
    before = [(module.__dict__, module.__dict__.get(name)) for module, _ in replacements]
    try:
        for module, function in replacements:
            module.__dict__[name] = function
        yield
    finally:
        for attributes, was in before:
            if was is None:
                attributes.pop(name, None)
            else:
                attributes[name] = was


def _again(block: nn.Module, layers: dict[int, _Replacement]) -> _Replacement:
    """Make a checkpointed block remember who asked: it runs again in the backward pass, when nobody asks."""
    checkpoint: Callable[..., Any] = block.__dict__[_CHECKPOINT]
    inside = [layers[id(module)] for module in block.modules() if id(module) in layers]

    def remembering(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def run(*inputs: Any, **options: Any) -> Any:
            with _replaced(_CALL, inside):
                return function(*inputs, **options)

        return checkpoint(run, *args, **kwargs)

    return _Replacement(block, remembering)


def _changed(layer: nn.Module, change: nn.Module | None) -> Callable[..., Any]:
    """What a wrapped layer answers without the policy's adapter, with the critic's change."""
    unchanged = _without_adapter(layer)
    if change is None:
        return unchanged

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        answer: Tensor = unchanged(x, *args, **kwargs)
        summed: Tensor = answer + change(x)
        return summed.to(answer.dtype)

    return forward


def _wrapped_layers(base: nn.Module) -> dict[str, nn.Module]:
    """The layers that the policy's adapter stands around, by their plain names."""
    kinds = (BaseTunerLayer, ModulesToSaveWrapper)
    wrapped = {plain_name(name): module for name, module in base.named_modules() if isinstance(module, kinds)}
    if not any(map(_linear_below, wrapped.values())):
        raise ModelError(
            "critic is 'lora', which needs a policy with an adapter on linear layers, whose frozen base it shares; "
            "give peft_config (in a recipe: model.lora), or set critic to 'shared' or 'separate'"
        )
    trained = trained_below_adapter(base)
    if trained is not None:
        raise ModelError(
            f"critic is 'lora', which shares the policy's frozen base, but {trained} is trained beside the adapter; "
            "freeze it (in LoraConfig: bias='none'), or set critic to 'separate'"
        )
    return wrapped


def _without_adapter(layer: Any) -> nn.Module:
    original: nn.Module = layer.original_module if isinstance(layer, ModulesToSaveWrapper) else layer.get_base_layer()
    return original


def _linear_below(layer: nn.Module) -> nn.Linear | None:
    """The linear layer that an adapter changes; None for other layers, and for those that are trained as a whole."""
    below = _without_adapter(layer)
    return below if isinstance(below, nn.Linear) and isinstance(layer, BaseTunerLayer) else None


def _change_of(layer: nn.Module, r: int, scale: float, generator: torch.Generator) -> LowRankChange | None:
    linear = _linear_below(layer)
    if linear is None:
        return None
    return LowRankChange(linear.in_features, linear.out_features, r, scale, generator).to(linear.weight.device)
