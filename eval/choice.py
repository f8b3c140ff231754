"""What samples in an evaluation outside a run, and the settings it has. Imports no torch."""

from dataclasses import dataclass

from rltoolkit.errors import RolloutError
from rltoolkit.recipe.addresses import refused_urls, sentence

__all__ = ["BACKENDS", "WAIT_S", "SamplerChoice"]

BACKENDS = ("transformers", "vllm", "vllm-server")

WAIT_S = 10.0
"""Short, beside the patience of a training run: whoever evaluates sits in front of it."""


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
    wait_s: float | None = None
    """How long all servers may be away, for backend vllm-server alone; None is `WAIT_S`."""

    def __post_init__(self) -> None:
        """Refuse what would have no effect."""
        if self.backend not in BACKENDS:
            raise RolloutError(f"backend is {self.backend!r}; give one of {', '.join(BACKENDS)}")
        if self.backend == "vllm-server" and not self.urls:
            raise RolloutError("backend vllm-server needs the servers' URLs; give --url, as `rltoolkit serve` prints")
        if refused := refused_urls(url.rstrip("/") for url in self.urls):
            raise RolloutError(f"--url {'; '.join(map(sentence, refused))}")
        if self.backend != "vllm-server" and self.urls:
            raise RolloutError(
                f"--url is for backend vllm-server, the backend is {self.backend}; remove one of the two"
            )
        if self.backend != "vllm-server" and self.wait_s is not None:
            raise RolloutError(
                f"--wait is for backend vllm-server, the backend is {self.backend}; remove one of the two"
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
