"""Weights of other sources copied into the module that samples, in place."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.adapters import adapted_weights, base_module, fill_adapter, refuse_not_numbers
from rltoolkit.rollout.weights import FolderKind, PolicySource, architecture_of, folder_kind, load_policy, memory_state

__all__ = ["WeightTarget"]


class WeightTarget:
    """A module in memory that takes over the weights of sources of the same architecture.

    A refused source leaves it as it was. Where the module is a plain model the base weights that an adapter
    changes are kept, so that the next adapter replaces it exactly.
    """

    def __init__(self, module: nn.Module) -> None:
        """`module` is a plain model or a PEFT model."""
        self._module = module
        self._base: dict[str, Tensor] = {}

    def take(self, source: PolicySource) -> None:
        """Copy the weights of `source`; RolloutError when they do not fit."""
        if source is self._module:
            self._base = {}  # it may have been trained since
        elif isinstance(source, nn.Module):
            self._take_module(source, type(base_module(source)).__name__)
        elif folder_kind(source) is FolderKind.MODEL:
            self._take_module(load_policy(source, dtype=next(self._module.parameters()).dtype), str(source))
        elif _is_peft(self._module):
            fill_adapter(self._module, Path(source))
        else:
            self._take_adapter(Path(source))

    def _take_module(self, source: nn.Module, where: str) -> None:
        base: dict[str, Tensor] = {}
        if not _is_peft(self._module):
            state = memory_state(source)
            if _is_peft(source):
                plain = memory_state(source, with_adapter=False)
                base = {name: plain[name].clone() for name in plain if plain[name].data_ptr() != state[name].data_ptr()}
        elif _is_peft(source):
            _compare_scaling(source, self._module, where)
            state = dict(source.state_dict())
            refuse_not_numbers(state, where)
        else:
            raise RolloutError(
                f"{where} is a plain model, the model that samples has an adapter; give a PEFT model or an adapter "
                "folder, or sample with a plain model"
            )
        _copy(state, self._module, where)
        self._base = base

    def _take_adapter(self, folder: Path) -> None:
        base = memory_state(self._module) | self._base
        changed = adapted_weights(architecture_of(self._module), base, folder)
        refuse_not_numbers(changed, str(folder))
        kept = {name: base[name].clone() for name in changed}
        _copy(base | changed, self._module, str(folder))
        self._base = kept


def _is_peft(module: nn.Module) -> bool:
    from peft import PeftModel

    return isinstance(module, PeftModel)


def _compare_scaling(source: nn.Module, target: nn.Module, where: str) -> None:
    """Refuse an adapter that counts more or less than the target's: that is no weight, and would not be copied."""
    layers = dict(source.named_modules())
    for name, layer in target.named_modules():
        scaling = getattr(layer, "scaling", None)
        if isinstance(scaling, dict):
            other = getattr(layers.get(name), "scaling", None)
            if other != scaling:
                raise RolloutError(
                    f"the adapter of {where} does not fit the model that samples: its scaling is {other} in {name}, "
                    f"expected {scaling}; give an adapter with the same r and lora_alpha"
                )


def _copy(state: Mapping[str, Tensor], module: nn.Module, where: str) -> None:
    """Copy `state` into `module` after all names and shapes are compared."""
    target = module.state_dict() if _is_peft(module) else _views(module)
    for name, tensor in target.items():
        if name not in state or state[name].shape != tensor.shape:
            found = tuple(state[name].shape) if name in state else "missing"
            raise RolloutError(
                f"the weights of {where} do not fit the model that samples: {name} is {found}, expected "
                f"{tuple(tensor.shape)}; give the same architecture"
            )
    unknown = sorted(set(state) - set(target)) if not _is_peft(module) else []
    if unknown:
        raise RolloutError(
            f"the weights of {where} do not fit the model that samples: it has no {unknown[0]}; give the same "
            "architecture"
        )
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(state[name])


def _views(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a plain model as views that can be written, without what is attached to it."""
    found = base_module(module).state_dict()
    return {name: found[name] for name in architecture_of(module).state_dict() if name in found}
