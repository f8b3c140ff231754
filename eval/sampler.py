"""The sampler of an evaluation outside a run: a saved model, on one of the rollout backends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.adapters import adapter_of
from rltoolkit.rollout.base import RolloutBackend
from rltoolkit.rollout.choose import saved_end_token_ids, sync_saved
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.load import load_transformers_backend
from rltoolkit.rollout.saved import base_folder, local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["SamplerChoice", "open_sampler"]

BACKENDS = ("transformers", "vllm", "vllm-server")

ENGINE_GPU_SHARE = 0.9
"""Of a GPU's memory: nobody trains beside an evaluation."""


@dataclass(frozen=True)
class SamplerChoice:
    """Which backend samples, and its settings; RolloutError for settings that this backend does not have."""

    backend: str = "transformers"
    urls: tuple[str, ...] = ()
    """Of the servers, for backend vllm-server alone."""
    dtype: str = "auto"
    """What the weights are computed in, "auto" for what they were saved in; a server has its own."""
    device: str | None = None
    """For backend transformers alone; None is a GPU if there is one."""

    def __post_init__(self) -> None:
        """Refuse what would have no effect."""
        if self.backend not in BACKENDS:
            raise RolloutError(f"backend is {self.backend!r}; give one of {', '.join(BACKENDS)}")
        if self.backend == "vllm-server" and not self.urls:
            raise RolloutError("backend vllm-server needs the servers' URLs; give --url, as `rltoolkit serve` prints")
        if self.backend != "vllm-server" and self.urls:
            raise RolloutError(
                f"--url is for backend vllm-server, the backend is {self.backend}; remove one of the two"
            )
        if self.backend != "transformers" and self.device is not None:
            raise RolloutError(
                f"--device is {self.device} with backend {self.backend}: vLLM takes the device it was built for and "
                "started on; remove --device (CUDA_VISIBLE_DEVICES chooses among GPUs)"
            )
        if self.backend == "vllm-server" and self.dtype != "auto":
            raise RolloutError(
                f"--dtype is {self.dtype} with backend vllm-server: a server has the dtype it was started with; "
                "remove --dtype, or set rollout.engine.dtype for `rltoolkit serve`"
            )


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

        return VLLMServerBackend(ServerOptions(urls=choice.urls), eos_token_ids=eos_token_ids)
    from rltoolkit.rollout.vllm_backend import VLLMBackend

    facts = adapter_of(folder)
    engine = EngineOptions(
        dtype=choice.dtype,
        gpu_memory_utilization=ENGINE_GPU_SHARE,
        sleep=False,
        lora_rank=facts.rank if facts is not None and facts.unmerged else None,
    )
    return VLLMBackend(base, eos_token_ids=eos_token_ids, engine=engine, seed=seed)
