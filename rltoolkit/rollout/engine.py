"""The settings of a vLLM engine, in this process or in a server."""

from dataclasses import dataclass

from rltoolkit.errors import RolloutError

__all__ = ["IN_PROCESS_GPU_SHARE", "LORA_RANKS", "SERVER_GPU_SHARE", "EngineOptions"]

IN_PROCESS_GPU_SHARE = 0.3
"""Fraction of a GPU that vLLM takes beside a trainer, unless told otherwise."""

SERVER_GPU_SHARE = 0.9
"""Fraction of a GPU that a server takes, which has it for itself."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for the largest rank of an adapter."""


@dataclass(frozen=True)
class EngineOptions:
    """What vLLM is told when it starts. Raises RolloutError for a value that no engine can have."""

    dtype: str = "auto"
    """float32, bfloat16, float16, or auto for what the model was saved in."""
    gpu_memory_utilization: float | None = None
    """Fraction of a GPU's memory; None is 0.3 beside a trainer, 0.9 on a server."""
    max_model_len: int | None = None
    """Most tokens of prompt and answer together; None is the model's own limit."""
    tensor_parallel: int = 1
    """GPUs that share one copy of the model."""
    enforce_eager: bool = False
    """No compilation and no CUDA graphs: starts sooner, samples more slowly."""
    sleep: bool = True
    """In process: give memory back between `sleep` and `wake`, where the device can."""
    cpu_cache_gib: int = 1
    """GiB of KV cache on a CPU."""
    lora_rank: int | None = None
    """Adapters up to this rank are loaded without merging; None: every adapter is merged."""
    args: tuple[str, ...] = ()
    """Further flags of a server, one text each."""

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        for name in ("tensor_parallel", "cpu_cache_gib"):
            if getattr(self, name) < 1:
                raise RolloutError(f"engine.{name} is {getattr(self, name)}; give a whole number >= 1")
        for name in ("max_model_len", "lora_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RolloutError(f"engine.{name} is {value}; give a whole number >= 1, or None")
        share = self.gpu_memory_utilization
        if share is not None and not 0.0 < share <= 1.0:
            raise RolloutError(f"engine.gpu_memory_utilization is {share}; give a fraction in (0, 1]")

    @property
    def max_lora_rank(self) -> int | None:
        """The rank to start vLLM with: `lora_rank` rounded up to one it takes, None where adapters are merged.

        Ranks above vLLM's largest are merged, too.
        """
        if self.lora_rank is None:
            return None
        return next((rank for rank in LORA_RANKS if rank >= self.lora_rank), None)
