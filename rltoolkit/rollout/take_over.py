"""Weights of other sources copied into the module that samples, in place."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.adapters import (
    adapted_weights,
    base_module,
    fill_adapter,
    peft_model_of,
    plain_name,
    refuse_not_numbers,
)
from rltoolkit.rollout.weights import (
    FolderKind,
    PolicySource,
    architecture_of,
    folder_kind,
    load_policy,
    memory_state,
    policy_config,
    refuse_other_model,
)

__all__ = ["WeightTarget"]


class WeightTarget:
    """A module in memory that takes over the weights of sources of the same architecture.

    A refused source leaves it as it was. Where the module is a plain model the base weights that an adapter
    changes are kept, so that the next adapter replaces it exactly.
    """

    def __init__(self, module: nn.Module) -> None:
        """`module` is a plain model or a PEFT model."""
        self._module = module
        self._peft = peft_model_of(module)
        self._base: dict[str, Tensor] = {}

    def take(self, source: PolicySource) -> None:
        """Copy the weights of `source`; RolloutError when they do not fit."""
        if source is self._module:
            self._base = {}  # it may have been trained since
        elif isinstance(source, nn.Module):
            refuse_other_model(source, policy_config(self._module))
            self._take_module(source, type(base_module(source)).__name__)
        elif folder_kind(source) is FolderKind.MODEL:
            refuse_other_model(source, policy_config(self._module))
            self._take_module(load_policy(source, dtype=next(self._module.parameters()).dtype), str(source))
        elif self._peft is not None:
            fill_adapter(self._peft, Path(source))
        else:
            self._take_adapter(Path(source))

    def _take_module(self, source: nn.Module, where: str) -> None:
        base: dict[str, Tensor] = {}
        peft = peft_model_of(source)
        if self._peft is None:
            state = memory_state(source)
            if peft is not None:
                plain = memory_state(source, with_adapter=False)
                base = {name: plain[name].clone() for name in plain if plain[name].data_ptr() != state[name].data_ptr()}
            target = _views(self._module)
        elif peft is not None:
            _compare_adapters(peft, self._peft, where)
            state, target = _plain(peft.state_dict()), _plain(self._peft.state_dict())
            state = {name: state[name] for name in target if name in state}  # without what is attached to it
            refuse_not_numbers(state, where)
        else:
            raise RolloutError(
                f"{where} is a plain model, the model that samples has an adapter; give a PEFT model or an adapter "
                "folder, or sample with a plain model"
            )
        _copy(state, target, where)
        self._base = base

    def _take_adapter(self, folder: Path) -> None:
        base = memory_state(self._module) | self._base
        changed = adapted_weights(architecture_of(self._module), base, folder)
        refuse_not_numbers(changed, str(folder))
        kept = {name: base[name].clone() for name in changed}
        _copy(base | changed, _views(self._module), str(folder))
        self._base = kept


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {plain_name(name): tensor for name, tensor in state.items()}


def _compare_adapters(source: nn.Module, target: nn.Module, where: str) -> None:
    """Refuse an adapter that counts more or less than the target's: that is no weight, and would not be copied."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {plain_name(name): layer for name, layer in source.named_modules()}
    for name, layer in target.named_modules():
        other = layers.get(plain_name(name))
        for field in ("active_adapters", "merged_adapters", "disable_adapters", "scaling"):
            mine, theirs = getattr(layer, field, None), getattr(other, field, None)
            if isinstance(layer, BaseTunerLayer) and mine != theirs:
                raise RolloutError(
                    f"the adapter of {where} does not fit the model that samples: its {field} is {theirs} in "
                    f"{plain_name(name)}, expected {mine}; give an adapter with the same r and lora_alpha that is used "
                    "alike (active, not merged, not disabled), or sample with a plain model"
                )


def _copy(state: Mapping[str, Tensor], target: Mapping[str, Tensor], where: str) -> None:
    """Copy `state` into `target` after all names and shapes are compared."""
    for name in sorted(state.keys() | target.keys()):
        found = tuple(state[name].shape) if name in state else "missing"
        wanted = tuple(target[name].shape) if name in target else "no such weight"
        if found != wanted:
            raise RolloutError(
                f"the weights of {where} do not fit the model that samples: {name} is {found}, expected {wanted}; give "
                "the same architecture"
            )
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(state[name])


def _views(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a plain model as views that can be written, without what is attached to it."""
    found = base_module(module).state_dict()
    return {name: found[name] for name in architecture_of(module).state_dict() if name in found}
