"""LoRA adapters of a policy: what they are, their weights merged into copies, their folders.

Nothing here changes the module it is given: a trainer goes on with it.
"""

import copy
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rltoolkit.errors import RolloutError

__all__ = [
    "ADAPTER_CONFIG",
    "AdapterFacts",
    "adapted_weights",
    "adapter_of",
    "base_module",
    "check_adapter",
    "fill_adapter",
    "merged_state",
    "peft_model_of",
    "plain_name",
    "refuse_not_numbers",
    "replaced_folder",
    "write_adapter",
]

ADAPTER_CONFIG = "adapter_config.json"
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")
"""Layers for which an adapter has to carry more than plain A and B, or that may be tied."""
WRAPPER_NAMES = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""Put into parameter names by torch.compile and activation checkpointing."""
SILENT_FIELDS = frozenset(
    {
        *("task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision"),
        *("inference_mode", "lora_dropout", "init_lora_weights"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    }
)
"""Fields of a configuration that say nothing about what the adapter's tensors, by their names, compute."""
PLAIN_FIELDS = SILENT_FIELDS | {"r", "lora_alpha", "use_rslora"}
"""The fields that vLLM heeds, or need not heed. Whatever else is set makes a variant that is merged here."""
BASE_KEEPING_STARTS = ("gaussian", "eva", "orthogonal", "mica")
"""Values of init_lora_weights, besides true and false, that leave the base weights as they are."""


@dataclass(frozen=True)
class AdapterFacts:
    """What a rollout engine needs to know about an adapter."""

    rank: int
    unmerged: bool
    """Whether vLLM can load it as it is; otherwise it has to be merged into the policy's weights."""
    reason: str = ""
    """Why it has to be merged."""


def base_module(module: nn.Module) -> Any:
    """Return the architecture's own module, without what DDP, torch.compile and PEFT put around it."""
    peft = peft_model_of(module)
    return _unwrapped(module if peft is None else peft.get_base_model())


def peft_model_of(module: nn.Module) -> Any:
    """Return the PEFT model that DDP or torch.compile may stand around; None for a model without PEFT."""
    from peft import PeftModel

    inner = _unwrapped(module)
    return inner if isinstance(inner, PeftModel) else None


def _unwrapped(module: Any) -> Any:
    from torch.nn.parallel import DistributedDataParallel

    while True:
        if isinstance(module, DistributedDataParallel):
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            return module


def adapter_of(source: nn.Module | str | Path) -> AdapterFacts | None:
    """Describe the adapter of a PEFT model or of an adapter folder; None for a model without one in use.

    Raises RolloutError for an adapter that no plain model of its architecture could follow, and for a folder
    whose adapter stands on other base weights than those it was started from.
    """
    if isinstance(source, nn.Module):
        config = _active_config(source)
        return None if config is None else _facts(config.to_dict(), type(source).__name__)
    path = Path(source) / ADAPTER_CONFIG
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text())
        facts = _facts(config, str(source))
    except (ValueError, KeyError, TypeError) as error:
        raise RolloutError(f"{path} is no adapter configuration of PEFT ({error!r}); save the adapter again") from error
    _refuse_altered_base(config, str(source))
    return facts


def _facts(config: Mapping[str, Any], where: str) -> AdapterFacts:
    """Facts of a PEFT configuration, as a mapping."""
    from peft import LoraConfig

    kind = str(getattr(config["peft_type"], "value", config["peft_type"]))
    if kind != "LORA":
        return AdapterFacts(0, unmerged=False, reason=f"its type is {kind}, not LORA")
    _refuse_unmergeable(config, where)
    usual = LoraConfig().to_dict()
    differing = (name for name in config if (config[name] or None) != (usual.get(name) or None))
    found = sorted(name for name in differing if name not in PLAIN_FIELDS)
    found += ["embeddings"] if _targets_embeddings(config) else []
    return AdapterFacts(int(config["r"]), unmerged=not found, reason=f"it has {', '.join(found)}" if found else "")


def _refuse_unmergeable(config: Mapping[str, Any], where: str) -> None:
    """Refuse what is no change of the weights that the architecture has."""
    for field in ("alora_invocation_tokens", "layer_replication"):
        if config.get(field):
            raise RolloutError(
                f"the adapter of {where} has {field}, which no change of the model's own weights can express; train a "
                "LoRA adapter without it"
            )


def _refuse_altered_base(config: Mapping[str, Any], where: str) -> None:
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in BASE_KEEPING_STARTS:
        raise RolloutError(
            f"the adapter {where} was started with init_lora_weights {start!r}, which also changes the base "
            "weights; give the PEFT model itself, or merge it (merge_and_unload) and give the folder of the whole model"
        )


def _active_config(module: nn.Module) -> Any:
    """Return the configuration of the adapter in use; None when there is none, or it is disabled."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    peft = peft_model_of(module)
    if peft is None:
        return None
    layers = [layer for layer in peft.modules() if isinstance(layer, BaseTunerLayer)]
    if layers and all(layer.disable_adapters for layer in layers):
        return None
    active = peft.active_adapters
    if len(active) != 1:
        raise RolloutError(
            f"the policy has {len(active)} active adapters ({', '.join(active) or 'none'}); make one of them active "
            "with set_adapter"
        )
    return peft.peft_config[active[0]]


def merged_state(module: nn.Module, *, with_adapter: bool = True) -> dict[str, Tensor]:
    """Return all weights under the architecture's own names, adapters merged into copies or left out.

    Tensors that no adapter touches are the module's own; the copies are on the CPU. Raises RolloutError for an
    adapter that is no change of weights.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    inner = base_module(module)
    for config in (getattr(peft_model_of(module), "peft_config", None) or {}).values():
        _refuse_prompt_learning(config)
        _refuse_unmergeable(config.to_dict(), type(inner).__name__)
    state: dict[str, Tensor] = dict(inner.state_dict())
    for name, layer in inner.named_modules():
        if isinstance(layer, BaseTunerLayer):
            _replace(state, name, _merged_layer(name, layer, with_adapter))
        elif isinstance(layer, AuxiliaryTrainingWrapper):
            _replace(state, name, _chosen_module(name, layer, with_adapter).state_dict())
    return {plain_name(name): tensor for name, tensor in state.items()}


def plain_name(name: str) -> str:
    """Return the name of a weight without what torch.compile and activation checkpointing put into it."""
    for part in WRAPPER_NAMES:
        name = name.replace(part, "")
    return name


def _replace(state: dict[str, Tensor], layer: str, weights: Mapping[str, Tensor]) -> None:
    """Put `weights` in the place of everything that `state` holds of a layer."""
    for name in [name for name in state if name.startswith(f"{layer}.")]:
        del state[name]
    state.update({f"{layer}.{name}": tensor for name, tensor in weights.items()})


def _merged_layer(name: str, layer: Any, with_adapter: bool) -> dict[str, Tensor]:
    """Return the weights of the layer that an adapter stands around, with the adapter's change or without."""
    wanted = list(layer.active_adapters) if with_adapter and not layer.disable_adapters else []
    if list(layer.merged_adapters) != wanted:
        layer = copy.deepcopy(layer)  # PEFT merges in place, and knows every variant of LoRA
        try:
            with torch.no_grad():
                if layer.merged_adapters:
                    layer.unmerge()
                if wanted:
                    layer.merge(adapter_names=wanted)
        except (ValueError, TypeError, RuntimeError) as error:
            raise RolloutError(
                f"PEFT cannot merge the adapter of {plain_name(name)}: {error}; train a plain LoRA adapter"
            ) from error
        # Off the device at once: all merged layers together are as large as the model.
        return {name: tensor.cpu() for name, tensor in layer.get_base_layer().state_dict().items()}
    weights: dict[str, Tensor] = layer.get_base_layer().state_dict()
    return weights


def _chosen_module(name: str, wrapper: Any, with_adapter: bool) -> nn.Module:
    """Return the module that a PEFT wrapper answers with: the trained copy, or the original."""
    from peft.utils.other import ModulesToSaveWrapper

    if not isinstance(wrapper, ModulesToSaveWrapper):
        raise RolloutError(
            f"the adapter wraps {name} in {type(wrapper).__name__}, which cannot be merged here; train the layer by "
            "LoRA or with modules_to_save, or merge the adapter yourself (merge_and_unload)"
        )
    used = with_adapter and not wrapper.disable_adapters and wrapper.active_adapters
    module: nn.Module = wrapper.modules_to_save[wrapper.active_adapters[0]] if used else wrapper.original_module
    return module


def _refuse_prompt_learning(config: Any) -> None:
    if getattr(config, "is_prompt_learning", False):
        raise RolloutError(
            f"the adapter is {config.peft_type}, which adds tokens and changes no weights; a rollout engine cannot "
            "take it over: use LoRA"
        )


def write_adapter(module: nn.Module, folder: Path) -> None:
    """Write the adapter of a PEFT model to `folder`, which is replaced as a whole."""
    config = _active_config(module)
    if config is None:
        raise RolloutError(f"{type(module).__name__} has no adapter in use; write the whole model with write_policy")
    peft = peft_model_of(module)
    with replaced_folder(Path(folder)) as new:
        # Embeddings are saved where they are trained: "auto" would ask the hub for the base model's config.
        embeddings = _targets_embeddings(config.to_dict())
        name = peft.active_adapters[0]
        peft.save_pretrained(str(new), selected_adapters=[name], save_embedding_layers=embeddings)
        if (new / name / ADAPTER_CONFIG).is_file():  # PEFT gives an adapter that is not the default a folder of its own
            for file in (new / name).iterdir():
                file.rename(new / file.name)
        _rename_weights(new / "adapter_model.safetensors")


def _rename_weights(file: Path) -> None:
    """Give the weights of compiled layers their plain names: vLLM passes over names that it does not know."""
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    if any(plain_name(name) != name for name in weights):
        save_file({plain_name(name): tensor for name, tensor in weights.items()}, file, metadata={"format": "pt"})


def _adapter_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of an adapter folder under plain names."""
    from peft.utils import load_peft_weights
    from safetensors import SafetensorError

    try:
        weights = load_peft_weights(str(folder), device="cpu")
    except (OSError, ValueError, SafetensorError) as error:
        raise RolloutError(f"the adapter {folder} has no weights that can be read: {error}") from error
    return {plain_name(name): tensor for name, tensor in weights.items()}


def check_adapter(folder: Path, architecture: nn.Module) -> None:
    """Refuse an adapter folder whose A and B do not all fit a layer of `architecture`, a plain model.

    For an engine that loads it without merging: vLLM passes over weights whose layer it does not have.
    """
    weights = _adapter_weights(folder)
    layers = dict(architecture.named_modules())
    for name, tensor in weights.items():
        layer, _, part = name.removeprefix("base_model.model.").rpartition(".lora_")
        weight, side = getattr(layers.get(layer), "weight", None), {"A.weight": 1, "B.weight": 0}.get(part)
        if weight is None or side is None or tensor.shape[side] != weight.shape[side]:
            raise RolloutError(
                f"the adapter {folder} does not fit {type(architecture).__name__}: {name} of shape "
                f"{tuple(tensor.shape)} has no layer there to stand on; give an adapter of this model"
            )
    refuse_not_numbers(weights, str(folder))


def _targets_embeddings(config: Mapping[str, Any]) -> bool:
    targets = config.get("target_modules") or ()
    named = [targets] if isinstance(targets, str) else list(targets)
    return any(layer in target for layer in EMBEDDINGS for target in named)


def adapted_weights(architecture: nn.Module, base: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return the weights that an adapter folder changes, merged into copies; `base` stays as it is.

    `architecture` is the plain model on the meta device, `base` its weights. Raises RolloutError when the
    adapter does not belong to such a model.
    """
    from peft import PeftConfig, get_peft_model

    facts = adapter_of(folder)
    if facts is None:
        raise RolloutError(f"{folder} is no adapter folder: it has no {ADAPTER_CONFIG}; save the adapter again")
    config = PeftConfig.from_pretrained(str(folder))
    config.init_lora_weights = False  # no random start is needed
    untouched = {tensor.data_ptr() for tensor in base.values()}
    if _targets_embeddings(config.to_dict()):  # the adapter's file brings their base weights, too, to be written over
        base = {name: t.clone() if any(part in name for part in EMBEDDINGS) else t for name, t in base.items()}
    architecture.load_state_dict(base, strict=False, assign=True)
    try:
        peft = get_peft_model(architecture, config)
    except ValueError as error:
        raise RolloutError(f"the adapter {folder} does not fit {type(architecture).__name__}: {error}") from error
    fill_adapter(peft, folder)
    changed = {name: tensor for name, tensor in merged_state(peft).items() if tensor.data_ptr() not in untouched}
    tied: Any = architecture.all_tied_weights_keys
    for name, source in tied.items():
        if name in changed or source in changed:
            raise RolloutError(
                f"the adapter {folder} changes {name} or {source}, which are one and the same weight of "
                f"{type(architecture).__name__}; train the adapter without them"
            )
    return changed


def fill_adapter(peft: Any, folder: Path) -> None:
    """Load the weights of an adapter folder into the active adapter of a PEFT model of the same shape.

    Names, shapes and scaling are compared first, so that a refusal leaves the model as it was.
    """
    from peft import PeftConfig, get_peft_model_state_dict, set_peft_model_state_dict

    weights = _adapter_weights(folder)
    name = peft.active_adapters[0]
    mine, theirs = peft.peft_config[name].to_dict(), PeftConfig.from_pretrained(str(folder)).to_dict()
    _refuse_altered_base(theirs, str(folder))
    _refuse_altered_base(mine, "of the model that samples")
    _refuse_set_aside(peft)
    wanted = get_peft_model_state_dict(peft, adapter_name=name, save_embedding_layers=_targets_embeddings(mine))
    own_names = {plain_name(own): own for own in wanted}
    _compare(str(folder), weights, {plain: wanted[own] for plain, own in own_names.items()})
    for field in sorted(mine.keys() - SILENT_FIELDS):
        if (mine[field] or None) != (theirs.get(field) or None):
            raise RolloutError(
                f"the adapter {folder} has {field} {theirs.get(field)}, that of the model {mine[field]}; give an "
                "adapter of the same shape"
            )
    refuse_not_numbers(weights, str(folder))
    set_peft_model_state_dict(peft, {own_names[n]: tensor for n, tensor in weights.items()}, adapter_name=name)


def _refuse_set_aside(peft: nn.Module) -> None:
    """Refuse a model whose adapter is merged into the base, where it would count twice, or disabled."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in peft.named_modules():
        if isinstance(layer, BaseTunerLayer) and (layer.merged_adapters or layer.disable_adapters):
            state = "merged" if layer.merged_adapters else "disabled"
            raise RolloutError(
                f"the adapter of the model that samples is {state} in {plain_name(name)}, so that another one cannot "
                "take its place; call unmerge_adapter, or leave disable_adapter, first"
            )


def _compare(where: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise RolloutError when names or shapes differ."""
    for name in sorted(set(found) | set(wanted)):
        have = tuple(found[name].shape) if name in found else "missing"
        want = tuple(wanted[name].shape) if name in wanted else "no such weight"
        if have != want:
            raise RolloutError(
                f"the weights of {where} do not fit the model: {name} is {have}, expected {want}; give weights of the "
                "same architecture and adapter shape"
            )


def refuse_not_numbers(weights: Mapping[str, Tensor], where: str) -> None:
    """Raise RolloutError when a weight is NaN or infinite."""
    good = {name: tensor.isfinite().all() for name, tensor in weights.items() if tensor.is_floating_point()}
    bad = [name for name, flag in good.items() if not bool(flag)]  # read when all are asked for: no wait in between
    if not bad:
        return
    raise RolloutError(
        f"{len(bad)} weights of {where} are not finite numbers, for instance {bad[0]}; the training has diverged: "
        "lower the learning rate and go on from an earlier checkpoint"
    )


@contextmanager
def replaced_folder(folder: Path, size: int = 0) -> Iterator[Path]:
    """Give an empty folder to write into, which becomes `folder` when the block ends well.

    A reader sees the old folder or the new one, never a part of it. Raises RolloutError when there is no room for
    the `size` bytes that will be written, or nothing can be written.
    """
    from safetensors import SafetensorError

    made: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        new, old = made / "new", made / "old"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except (OSError, SafetensorError) as error:
        room = f"it takes {size / 2**30:.2f} GiB beside the one before it; " if size else ""
        raise RolloutError(
            f"the policy cannot be written to {folder}: {error}; {room}give a folder with room that can be written to"
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
