"""Loads new policy weights inside a vLLM worker, and says so when they did not all arrive.

vLLM's own `reload_weights` warns in its log about weights that are missing from a checkpoint and samples on from a
mixture of two policies; on a CPU it leaves the output layer of a tied model as it was. Neither is an error there.

This file is imported on its own by servers whose environment has no rltoolkit: it imports torch, safetensors and
huggingface_hub (which vLLM needs itself) and the standard library alone, and runs on Python 3.10. Start a server with
PYTHONPATH=<this folder> and --worker-extension-cls rltoolkit_vllm_worker.PolicyWorker.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

Shapes = dict[str, tuple[int, ...]]

MODEL_FIELDS = (
    "architectures",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "tie_word_embeddings",
)
"""Fields of a model's config by which the served model is described."""

SILENT_FIELDS = (
    *(
        "transformers_version",
        "architectures",
        "auto_map",
        "dtype",
        "torch_dtype",
        "problem_type",
        "id2label",
        "label2id",
    ),
    *("use_cache", "return_dict", "output_hidden_states", "output_attentions", "output_router_logits"),
    *("chunk_size_feed_forward", "initializer_range", "router_aux_loss_coef"),
)
"""Fields of a config that do not change what the model computes from its weights. All others have to agree."""
SILENT_ENDS = ("_token_id", "dropout", "_pdrop")
"""How names of further such fields end; those that begin with an underscore are of transformers' own use."""

DIGEST_BLOCKS, DIGEST_BLOCK = 64, 4096
"""So many blocks of so many bytes of each weight file count for its digest: a training step changes nearly all."""

HEAD = "lm_head.weight"
NOT_WEIGHTS = ("rotary_emb.inv_freq", "masked_bias")
"""Buffers that old checkpoints hold and no model reads."""

REMEDY = "give a complete checkpoint of the served model, as save_pretrained writes it"


class PolicyWorker:
    """Methods that vLLM adds to its worker (--worker-extension-cls), reached by /collective_rpc."""

    model_runner: Any
    """Of the worker that this becomes a part of."""

    def rltoolkit_load(self, weights_path: str) -> dict[str, Any]:
        """Replace the model's weights by those of a checkpoint folder; say how many, and the digest of its files.

        Raises ValueError, before anything is changed, when names, shapes or the config are not those of the served
        model; RuntimeError when a weight is not a number or a parameter was not reached: the old weights are gone
        then, and nothing may be sampled before a load that succeeds.
        """
        folder = Path(weights_path)
        files = weight_files(folder)
        _check_config(self, folder)
        _check_shapes(checkpoint_shapes(files), _started_shapes(self), _tied(self), str(folder))
        digest = folder_digest(folder)
        return {"loaded": _load(self, _read(files, _tied(self)), str(folder)), "digest": digest}

    def rltoolkit_model(self) -> dict[str, Any]:
        """Describe the served model: see MODEL_FIELDS; None for what its config does not say."""
        return _describe(self.model_runner.model_config.hf_config)


def load_weights(worker: Any, weights: dict[str, Tensor]) -> int:
    """Replace the model's weights by tensors in memory under checkpoint names; return how many parameters were set.

    Checked as `PolicyWorker.rltoolkit_load` does it. For an engine in the process of the trainer.
    """
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    _check_shapes(found, _started_shapes(worker), _tied(worker), "the policy")
    kept = weights.items() if not _tied(worker) else [item for item in weights.items() if item[0] != HEAD]
    return _load(worker, kept, "the policy")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder; ValueError when there are none or one of them is missing."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise ValueError(f"{folder} lacks {len(absent)} of {len(names)} weight files, first {absent[0]}; {REMEDY}")
        return [folder / name for name in names]
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} has no weights: found no model.safetensors; {REMEDY}")
    return [folder / "model.safetensors"]


def folder_digest(folder: Path) -> str:
    """Return 32 hex digits that name what the weight files of a folder hold, without reading them whole.

    Names and sizes, the headers, and blocks spread over each file count. Raises ValueError as `weight_files`.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in weight_files(folder):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            head = file.read(8)
            digest.update(head + file.read(min(size, int.from_bytes(head, "little"))))
            for i in range(DIGEST_BLOCKS):
                file.seek(max(0, size - DIGEST_BLOCK) * i // (DIGEST_BLOCKS - 1))
                digest.update(file.read(DIGEST_BLOCK))
    return digest.hexdigest()


def checkpoint_shapes(files: Sequence[Path]) -> Shapes:
    """Map names to shapes, from the files' headers alone."""
    shapes = {}
    for file in files:
        with safe_open(str(file), framework="pt") as opened:
            shapes.update({name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()})  # noqa: SIM118
    return shapes


def _read(files: Sequence[Path], tied: bool) -> Iterator[tuple[str, Tensor]]:
    for file in files:
        with safe_open(str(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  it is no dict
                if not (tied and name == HEAD):
                    yield name, opened.get_tensor(name)


def _started_shapes(worker: Any) -> Shapes:
    """Names and shapes of the checkpoint that the worker was started with, which vLLM had to load completely.

    Kept from the first look on: a reload by vLLM itself makes another folder the model's.
    """
    kept: Shapes | None = getattr(worker, "_rltoolkit_shapes", None)
    if kept is None:
        config = worker.model_runner.model_config
        kept = checkpoint_shapes(weight_files(_local(config.model, config.revision)))
        worker._rltoolkit_shapes = kept
    return kept


def _local(model: str, revision: str | None) -> Path:
    """Return the folder of a model, from the hub's cache when it is no folder."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, revision=revision, local_files_only=True))


def _check_shapes(found: Shapes, wanted: Shapes, tied: bool, where: str) -> None:
    """Raise ValueError when a checkpoint has other weights than the model was started with.

    By the checkpoint's names: vLLM fuses several of them into one parameter, whose name says nothing about a
    missing part.
    """
    found, wanted = _counted(found, tied), _counted(wanted, tied)
    differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f"{where} has other weights than the served model: {len(differing)} differ, for instance {name}: found "
            f"{found.get(name, 'none')}, expected {wanted.get(name, 'none')}; {REMEDY}"
        )


def _counted(shapes: Shapes, tied: bool) -> Shapes:
    return {
        name: shape for name, shape in shapes.items() if not name.endswith(NOT_WEIGHTS) and not (tied and name == HEAD)
    }


def config_difference(given: Mapping[str, Any], served: Mapping[str, Any]) -> str | None:
    """Say in which field a config, as a mapping, is of another model than the served one; None when in none."""
    for field in sorted(given.keys() | served.keys(), key=lambda field: (field != "model_type", field)):
        if field in SILENT_FIELDS or field.endswith(SILENT_ENDS) or field.startswith("_"):
            continue
        one, other = (json.loads(json.dumps(config.get(field), default=str)) for config in (given, served))
        if one != other:
            return f"{field} is {one}, expected {other}"
    return None


def _check_config(worker: Any, folder: Path) -> None:
    """Raise ValueError when the folder's config describes another model than that of the folder of the start."""
    path = folder / "config.json"
    if not path.is_file():
        return
    started = _started_config(worker)
    given = type(worker.model_runner.model_config.hf_config).from_pretrained(str(folder)).get_text_config().to_dict()
    kind = json.loads(path.read_text()).get("model_type")  # the class answers with its own
    difference = config_difference(given, started)
    if kind != worker.model_runner.model_config.hf_config.model_type:
        difference = f"model_type is {kind}, expected {worker.model_runner.model_config.hf_config.model_type}"
    if difference:
        raise ValueError(f"{path} is of another model: {difference}; {REMEDY}")


def _started_config(worker: Any) -> dict[str, Any]:
    """The config that the worker was started with, as in its folder: vLLM changes its own. Kept like the shapes."""
    kept: dict[str, Any] | None = getattr(worker, "_rltoolkit_config", None)
    if kept is None:
        config = worker.model_runner.model_config
        folder = _local(config.model, config.revision)
        kept = type(config.hf_config).from_pretrained(str(folder)).get_text_config().to_dict()
        worker._rltoolkit_config = kept
    return kept


def _describe(config: Any) -> dict[str, Any]:
    text = config.get_text_config()
    return {field: getattr(config if field == "architectures" else text, field, None) for field in MODEL_FIELDS}


def _tied(worker: Any) -> bool:
    return bool(_describe(worker.model_runner.model_config.hf_config)["tie_word_embeddings"])


def _load(worker: Any, weights: Iterable[tuple[str, Tensor]], where: str) -> int:
    """Stream weights into the model; RuntimeError when one is not a number or a parameter is left out."""
    model = worker.model_runner.get_model()
    if _tied(worker):
        _tied_layers(model)  # refused before anything is changed
    reached: set[str] = set()
    load = model.load_weights

    def recording(*args: Any, **kwargs: Any) -> set[str]:
        loaded: set[str] | None = load(*args, **kwargs)
        # Some models do not say; their checkpoint's names were compared all the same.
        reached.update(loaded if loaded is not None else (name for name, _ in model.named_parameters()))
        return reached

    model.load_weights = recording  # reload_weights keeps to itself what was reached
    flags: dict[str, Tensor] = {}
    try:
        # The worker's own, not the runner's: that one lacks the context of vLLM's config.
        worker.reload_weights(weights_iterator=_noting_numbers(weights, flags))
    except Exception as error:  # whatever vLLM's loaders raise: the model is half old, half new
        _finish(worker, model)
        raise RuntimeError(f"loading {where} failed midway, the old weights are gone: {error}") from error
    finally:
        del model.load_weights
    if _tied(worker):
        _retie(model)
    broken = [name for name, good in flags.items() if not bool(good)]
    if broken:
        raise RuntimeError(
            f"{len(broken)} weights of {where} have entries that are not finite numbers, for instance {broken[0]}, and "
            "the old weights are gone; the training has diverged: go on from an earlier checkpoint"
        )
    _check_reached(model, reached, where)
    return len(reached)


def _noting_numbers(weights: Iterable[tuple[str, Tensor]], flags: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Pass weights on and note whether they are numbers: the load is better ended than broken off.

    The flags are read after the load, so that it does not wait for each of them.
    """
    for name, tensor in weights:
        if tensor.is_floating_point():
            flags[name] = torch.isfinite(tensor).all()
        yield name, tensor


def _finish(worker: Any, model: nn.Module) -> None:
    """Bring a model whose reload was broken off into a state from which the next one works."""
    from vllm.config import set_current_vllm_config  # type: ignore[import-not-found]
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload  # type: ignore[import-not-found]

    with set_current_vllm_config(worker.vllm_config):
        finalize_layerwise_reload(model, worker.model_runner.model_config)


def _retie(model: Any) -> None:
    """Give the output layer of a tied model the new embeddings.

    On a GPU both have the same storage, so that it has them already. On a CPU vLLM keeps a packed copy for the
    matrix product, made when the model was started, and the reload renews only layers that are in the checkpoint.
    """
    head, embedding = _tied_layers(model)
    if head is embedding:
        return
    head.weight = embedding.weight
    if head.weight.device.type == "cpu":
        head.quant_method.process_weights_after_loading(head)


def _tied_layers(model: Any) -> tuple[Any, Any]:
    """Return the output layer and the embedding of a tied model; LoRA wraps layers."""
    if not hasattr(model, "lm_head") or not hasattr(getattr(model, "model", None), "embed_tokens"):
        raise ValueError(
            f"{type(model).__name__} has tied embeddings under other names than lm_head and model.embed_tokens; sample "
            "with the transformers backend, or untie them"
        )
    head, embedding = model.lm_head, model.model.embed_tokens
    return getattr(head, "base_layer", head), getattr(embedding, "base_layer", embedding)


def _check_reached(model: nn.Module, reached: set[str], where: str) -> None:
    """Raise RuntimeError when a parameter was not loaded; a tied one is counted once."""
    parameters = dict(model.named_parameters())
    missed = sorted({name.replace(".base_layer.", ".") for name in parameters if "lora_" not in name} - reached)
    if missed:
        raise RuntimeError(
            f"{len(missed)} parameters of the model were not loaded from {where}, for instance {missed[0]}; {REMEDY}"
        )
