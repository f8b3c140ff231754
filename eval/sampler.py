"""The sampler of an evaluation outside a run: a saved model, on one of the rollout backends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eval.choice import WAIT_S, SamplerChoice
from rltoolkit.rollout.adapters import adapter_of
from rltoolkit.rollout.base import RolloutBackend
from rltoolkit.rollout.choose import saved_end_token_ids, sync_saved
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.load import load_transformers_backend
from rltoolkit.rollout.saved import base_folder, local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["open_sampler"]

ENGINE_GPU_SHARE = 0.9
"""Of a GPU's memory: nobody trains beside an evaluation."""


@contextmanager
def open_sampler(
    choice: SamplerChoice, model: str | Path, tokenizer: "PreTrainedTokenizerBase", *, seed: int = 0
) -> Iterator[RolloutBackend]:
    """Give a backend that samples from the saved model, and close it at the end.

    `model` is a folder, of a whole model or of a LoRA adapter, or a hub name; vLLM and its servers read weights from
    folders, so that a hub name is fetched into the cache first. Raises ModelError or RolloutError.
    """
    if choice.backend == "transformers":
        with load_transformers_backend(model, tokenizer, dtype=choice.dtype, device=choice.device) as backend:
            yield backend
        return
    folder = local_folder(model)
    base = base_folder(folder)
    eos = saved_end_token_ids(base, tokenizer)
    with _vllm_backend(choice, folder, base, eos, seed) as backend:
        sync_saved(backend, folder, 0)
        yield backend


def _vllm_backend(
    choice: SamplerChoice, folder: Path, base: Path, eos_token_ids: tuple[int, ...], seed: int
) -> RolloutBackend:
    if choice.backend == "vllm-server":
        from rltoolkit.rollout.servers.backend import ServerOptions, VLLMServerBackend

        options = ServerOptions(urls=choice.urls, wait_s=WAIT_S if choice.wait_s is None else choice.wait_s)
        return VLLMServerBackend(options, eos_token_ids=eos_token_ids)
    from rltoolkit.rollout.vllm_backend import VLLMBackend

    facts = adapter_of(folder)
    engine = EngineOptions(
        dtype=choice.dtype,
        gpu_memory_utilization=ENGINE_GPU_SHARE,
        sleep=False,
        lora_rank=facts.rank if facts is not None and facts.unmerged else None,
    )
    return VLLMBackend(base, eos_token_ids=eos_token_ids, engine=engine, seed=seed)
