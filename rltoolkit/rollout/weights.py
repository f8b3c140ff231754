"""The weights of a policy, wherever they come from: a module in memory, a model folder, a LoRA adapter.

Every backend that does not sample from the trained module itself takes its weights through here, so that
names, adapters, tied embeddings and broken weights are treated alike.
"""

import copy
import hashlib
import logging
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.adapters import (
    ADAPTER_CONFIG,
    AdapterFacts,
    adapter_of,
    base_module,
    merged_state,
    plain_name,
    refuse_not_numbers,
    replaced_folder,
    write_adapter,
)
from rltoolkit.rollout.vllm_worker.rltoolkit_vllm_worker import checkpoint_shapes, config_difference, weight_files

__all__ = [
    "AdapterFacts",
    "FolderKind",
    "PolicySource",
    "adapter_of",
    "architecture_of",
    "content_fingerprint",
    "folder_kind",
    "is_tied",
    "load_policy",
    "load_whole",
    "memory_state",
    "policy_config",
    "policy_state",
    "refuse_other_model",
    "refuse_partial",
    "state_fingerprint",
    "trained_below_adapter",
    "write_adapter",
    "write_policy",
]

logger = logging.getLogger(__name__)

PolicySource: TypeAlias = nn.Module | str | Path
"""A policy: a module in memory (also PEFT), the folder of a whole model, or the folder of a LoRA adapter."""

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")

FINGERPRINT_WORDS = 1 << 22
"""At most so many words of 8 bytes are hashed at a time (32 MiB, and as much again for intermediate results)."""


class FolderKind(StrEnum):
    """What a checkpoint folder holds."""

    MODEL = "model"
    ADAPTER = "adapter"


def folder_kind(folder: str | Path) -> FolderKind:
    """Tell a model folder from an adapter folder; RolloutError when it is neither, or has no weights."""
    path = Path(folder)
    if not path.is_dir():
        raise RolloutError(f"cannot take weights from {path}: there is no such folder; give a checkpoint folder")
    if (path / ADAPTER_CONFIG).is_file():
        kind = FolderKind.ADAPTER
        files = [file for pattern in WEIGHT_FILES for file in path.glob(pattern) if file.name.startswith("adapter_")]
    elif (path / "config.json").is_file():
        kind = FolderKind.MODEL
        files = [file for pattern in WEIGHT_FILES for file in path.glob(pattern)]
    else:
        raise RolloutError(
            f"cannot take weights from {path}: found neither config.json nor {ADAPTER_CONFIG}; give the folder of a "
            "whole model or of a LoRA adapter, as save_pretrained writes it"
        )
    if not any(file.stat().st_size for file in files):
        raise RolloutError(
            f"cannot take weights from {path}: it is a folder of kind {kind}, but without weights (*.safetensors); "
            "give a complete checkpoint, as save_pretrained writes it"
        )
    return kind


def policy_config(source: PolicySource) -> Any:
    """Return the transformers config of a module or of a model folder."""
    if isinstance(source, nn.Module):
        inner = base_module(source)
        if not hasattr(inner, "config"):
            raise RolloutError(
                f"{type(inner).__name__} has no config; give a causal language model of transformers, or PEFT on one"
            )
        return inner.config
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        raise RolloutError(f"{source} has no config.json that transformers can read: {error}") from error


def refuse_other_model(source: PolicySource, config: Any) -> None:
    """Refuse a policy whose config differs from `config`, that of the model that samples, in what it computes."""
    given, served = (c.get_text_config(decoder=True).to_dict() for c in (policy_config(source), config))
    if difference := config_difference(given, served):
        where = type(base_module(source)).__name__ if isinstance(source, nn.Module) else source
        raise RolloutError(
            f"{where} is another model than the one that samples: {difference}; give weights of the model that the "
            "backend was started with"
        )


def is_tied(config: Any) -> bool:
    """Whether the output layer is the embedding itself."""
    return bool(getattr(config.get_text_config(decoder=True), "tie_word_embeddings", False))


def architecture_of(module: nn.Module) -> Any:
    """Build the plain model of `module` on the meta device: its names and shapes, no memory."""
    config = copy.deepcopy(policy_config(module))
    with torch.device("meta"):
        return type(base_module(module))(config)


def memory_state(module: nn.Module, *, with_adapter: bool = True) -> dict[str, Tensor]:
    """Return the policy's weights under the names of a plain model in memory, tied ones under each name.

    Adapters are merged into copies; submodules that the architecture does not have, such as a critic, are
    left out; all else are the module's own tensors. Raises RolloutError when a weight is missing, of another
    shape, on other processes, or not a number.
    """
    return _checked_state(module, architecture_of(module), with_adapter)


def _checked_state(module: nn.Module, architecture: nn.Module, with_adapter: bool) -> dict[str, Tensor]:
    _refuse_sharded(module)
    _refuse_quantised(module)
    found = merged_state(module, with_adapter=with_adapter)
    where = type(base_module(module)).__name__
    state: dict[str, Tensor] = {}
    for name, wanted in architecture.state_dict().items():
        if name not in found or found[name].shape != wanted.shape:
            got = f"of shape {tuple(found[name].shape)}" if name in found else "missing"
            raise RolloutError(
                f"the weight {name} of {where} is {got}, its config says {tuple(wanted.shape)}; give the unwrapped, "
                "unquantised module that its config describes"
            )
        if wanted.is_floating_point() and (not found[name].is_floating_point() or found[name].element_size() < 2):
            raise RolloutError(
                f"the weight {name} of {where} is quantised ({found[name].dtype}) and cannot be taken over; load the "
                "policy without quantization"
            )
        state[name] = found[name]
    _refuse_untied(state, _tied_names(architecture), where)
    refuse_not_numbers({name: state[name] for name in state if name not in _tied_names(architecture)}, where)
    return state


def _tied_names(architecture: Any) -> dict[str, str]:
    """Map each name of a weight that is another one's to that other's name."""
    tied: dict[str, str] = architecture.all_tied_weights_keys
    return tied


def _refuse_untied(state: dict[str, Tensor], tied: dict[str, str], where: str) -> None:
    """Refuse weights that are tied by the config and differ in memory: a checkpoint holds only one of them."""
    for name, source in tied.items():
        one, other = state[name], state[source]
        if one.data_ptr() != other.data_ptr() and not torch.equal(one.cpu(), other.cpu()):
            raise RolloutError(
                f"{name} of {where} is tied to {source} by the config, but they differ (an adapter on one of them?); "
                "set tie_word_embeddings to false before training, or leave both out of the adapter"
            )


def _refuse_sharded(module: nn.Module) -> None:
    from torch.distributed.tensor import DTensor

    for name, parameter in module.named_parameters():
        if isinstance(parameter, DTensor) or hasattr(parameter, "ds_id") or "_flat_param" in name:
            raise RolloutError(
                f"the weight {name} is sharded over processes; save a whole checkpoint and sync from its folder, or "
                "gather the weights into one module first"
            )


def _refuse_quantised(module: nn.Module) -> None:
    if getattr(policy_config(module), "quantization_config", None) is not None:
        raise RolloutError(
            f"{type(base_module(module)).__name__} is quantised (its config has quantization_config), so that its "
            "tensors are not its weights; load the policy without quantization"
        )


def policy_state(module: nn.Module, *, with_adapter: bool = True) -> dict[str, Tensor]:
    """Return the policy's weights under the names of a checkpoint of its architecture.

    As `memory_state`, with tied weights once, and in the layout in which checkpoints keep what transformers
    fuses in memory. The module stays unchanged; tensors that nothing was merged into are its own.
    """
    from transformers.core_model_loading import revert_weight_conversion

    architecture = architecture_of(module)
    state = _checked_state(module, architecture, with_adapter)
    once = {name: tensor for name, tensor in state.items() if name not in _tied_names(architecture)}
    return dict(revert_weight_conversion(architecture, once))


def content_fingerprint(tensor: Tensor) -> Tensor:
    """Return a number, () int64 on the tensor's device, that changes when any bit of it does or moves elsewhere.

    Every word of 8 bytes is mixed with its place before the sum is taken, so that permuted rows and constant
    tensors differ (torch.hash_tensor is an exclusive or, for which they do not). No secret hash: two tensors that
    nobody made for it collide with probability 2**-64. Shape and dtype do not count.
    """
    data = tensor.detach().contiguous().view(-1)
    if data.numel() == 0:
        return torch.zeros((), dtype=torch.int64, device=tensor.device)
    if (data.storage_offset() * data.element_size()) % 8:
        data = data.clone()  # words of 8 bytes have to begin at a multiple of 8
    data = data.view(torch.uint8)
    whole = len(data) - len(data) % 8
    rest = torch.nn.functional.pad(data[whole:], (0, 8 - len(data) % 8))
    total = _mixed(rest.view(torch.int64), whole // 8)
    for start in range(0, whole, 8 * FINGERPRINT_WORDS):
        stop = min(whole, start + 8 * FINGERPRINT_WORDS)
        total = total + _mixed(data[start:stop].view(torch.int64), start // 8)
    return total


def _mixed(words: Tensor, first: int) -> Tensor:
    """Sum words (N,) int64, each scrambled with its place; arithmetic is modulo 2**64."""
    places = torch.arange(first, first + len(words), device=words.device)
    mixed = places.mul_(-7046029254386353131).add_(words)  # odd numbers without structure
    mixed ^= mixed >> 32
    mixed *= -4658895280553007687
    mixed ^= mixed >> 29
    return mixed.sum()


def state_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits that name weights by their contents: names, shapes, dtypes and every bit.

    The device is waited for once.
    """
    described = [f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in weights.items()]
    found = [content_fingerprint(tensor) for tensor in weights.values()]
    devices = {number.device for number in found}
    numbers = torch.stack(found).tolist() if len(devices) == 1 else [int(number) for number in found]
    lines = [f"{text} {number}" for text, number in zip(described, numbers, strict=True)]
    return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=8).hexdigest()


def write_policy(
    module: nn.Module, folder: str | Path, *, dtype: torch.dtype | None = None, with_adapter: bool = True
) -> None:
    """Write the policy to `folder`, which is replaced as a whole; transformers and vLLM load it.

    `dtype` None keeps that of the weights. Adapters are merged, or left out.
    """
    from huggingface_hub import save_torch_state_dict

    state = policy_state(module, with_adapter=with_adapter)
    if dtype is not None:
        # Each off the device at once: together they are as large as the model.
        state = {n: t if t.dtype == dtype or not t.is_floating_point() else t.to(dtype).cpu() for n, t in state.items()}
    state = {name: _on_its_own(tensor) for name, tensor in state.items()}
    inner = base_module(module)
    config = copy.deepcopy(inner.config)
    config.architectures = [type(inner).__name__]
    config.dtype = next(t.dtype for t in state.values() if t.is_floating_point())
    with replaced_folder(Path(folder), sum(tensor.nbytes for tensor in state.values())) as new:
        save_torch_state_dict(state, new, metadata={"format": "pt"})
        config.save_pretrained(new)
        _write_generation_config(inner, new)


def _write_generation_config(module: Any, folder: Path) -> None:
    """Write what other programs sample with by default; no sync needs it, so that an invalid one is left out."""
    if getattr(module, "generation_config", None) is not None:
        try:
            module.generation_config.save_pretrained(folder)
        except ValueError as error:
            logger.warning("generation_config.json is left out of %s: %s", folder, error)


def _on_its_own(tensor: Tensor) -> Tensor:
    """Return a tensor that is all of its memory: safetensors refuses a part, such as one expert of several."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def trained_below_adapter(module: nn.Module) -> str | None:
    """Name a weight of the architecture that is trained beside the adapter, or None: then the base stays as it is.

    What is attached to the architecture, such as a critic, is no weight of it.
    """
    names = architecture_of(module).state_dict().keys()
    for name, parameter in base_module(module).named_parameters():
        plain = plain_name(name).replace(".base_layer.", ".")
        if parameter.requires_grad and plain in names:
            return plain
    return None


def refuse_partial(folder: Path) -> None:
    """Raise RolloutError unless a model folder has every weight that its config says, by name and shape.

    For an engine that would load what is there, and sample on from a mixture. Only headers are read.
    """
    from transformers import AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    try:
        with torch.device("meta"):
            architecture = AutoModelForCausalLM.from_config(policy_config(folder))
        found = checkpoint_shapes(weight_files(folder))
    except (OSError, ValueError) as error:
        raise RolloutError(f"cannot take weights from {folder}: {error}") from error
    tied = _tied_names(architecture)
    wanted = {name: tensor for name, tensor in architecture.state_dict().items() if name not in tied}
    shapes = {name: tuple(t.shape) for name, t in revert_weight_conversion(architecture, wanted).items()}
    if missing := sorted(name for name, shape in shapes.items() if found.get(name) != shape):
        raise RolloutError(
            f"the checkpoint {folder} lacks {len(missing)} of {len(shapes)} weights, or has them in another shape, for "
            f"instance {missing[0]}: found {found.get(missing[0], 'none')}, expected {shapes[missing[0]]}; give a "
            "complete checkpoint, as save_pretrained writes it"
        )


def load_policy(folder: str | Path, *, dtype: torch.dtype | str = "auto") -> Any:
    """Load the folder of a whole model on the CPU; RolloutError when weights are missing or do not fit."""
    path = Path(folder)
    if folder_kind(path) is not FolderKind.MODEL:
        raise RolloutError(f"{path} is the folder of an adapter; give the folder of a whole model")
    return load_whole(path, dtype=dtype, local_files_only=True)


def load_whole(name_or_path: str | Path, *, dtype: torch.dtype | str, local_files_only: bool) -> Any:
    """Load a model by folder or hub name on the CPU; RolloutError when weights are missing, so would be random."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(name_or_path), dtype=dtype, local_files_only=local_files_only, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise RolloutError(f"cannot take weights from {name_or_path}: {error}; give a model folder") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise RolloutError(
            f"the checkpoint {name_or_path} lacks {len(missing)} weights, for instance {missing[0]}; give a complete "
            "checkpoint, as save_pretrained writes it"
        )
    return model
