"""Which vLLM servers to start, and the command and environment of each."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.engine import SERVER_GPU_SHARE, EngineOptions

__all__ = ["LaunchOptions", "server_command", "server_environment"]

MODULE = "vllm.entrypoints.openai.api_server"
WORKER_FOLDER = Path(__file__).parents[1] / "vllm_worker"
WORKER_CLASS = "rltoolkit_vllm_worker.PolicyWorker"
LONGEST_SOCKET_FOLDER = 107 - 37
"""Bytes. vLLM puts sockets with names of 36 letters into the folder for temporary files; a path has at most 107."""


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Which servers to start, one per port. Raises RolloutError for what cannot be."""

    model: str
    """A folder or a hub name."""
    python: str
    """The interpreter that has vLLM."""
    host: str = "127.0.0.1"
    """The address to bind."""
    ports: tuple[int, ...]
    devices: tuple[int, ...] = ()
    """GPUs, `engine.tensor_parallel` for each server in turn; empty for the CPU."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    log_dir: Path
    """Gets a file server-PORT.log for each server."""
    start_timeout_s: float = 600.0
    served_name: str = "policy"

    def __post_init__(self) -> None:
        """Check the numbers against each other."""
        if not self.ports or len(set(self.ports)) < len(self.ports):
            raise RolloutError(f"the servers' ports are {list(self.ports)}; give one for each server, each once")
        if wrong := [port for port in self.ports if not 1 <= port <= 65535]:
            raise RolloutError(f"{wrong[0]} is no port; give numbers from 1 to 65535")
        shared = self.engine.tensor_parallel
        if self.devices and len(self.devices) != shared * len(self.ports):
            raise RolloutError(
                f"{len(self.devices)} GPUs for {len(self.ports)} servers with tensor_parallel {shared}; "
                f"give {shared * len(self.ports)} GPUs, or {len(self.devices) // shared} ports"
            )
        if not self.devices and shared > 1:
            raise RolloutError(f"tensor_parallel is {shared} without GPUs; set it to 1 for servers on the CPU")

    def devices_of(self, index: int) -> tuple[int, ...]:
        """The GPUs of one server."""
        shared = self.engine.tensor_parallel
        return self.devices[index * shared : (index + 1) * shared]

    def log_of(self, index: int) -> Path:
        """The file that holds what one server wrote."""
        return self.log_dir / f"server-{self.ports[index]}.log"


def server_command(options: LaunchOptions, index: int) -> list[str]:
    """The command of one server.

    Its sampling defaults and log-probabilities are fixed here, because samples are scored with them: defaults of the
    model folder would change the distribution, and raw log-probabilities leave out the temperature.
    """
    engine = options.engine
    command = [options.python, "-m", MODULE, "--model", options.model, "--served-model-name", options.served_name]
    command += ["--host", options.host, "--port", str(options.ports[index]), "--disable-uvicorn-access-log"]
    command += ["--generation-config", "vllm", "--logprobs-mode", "processed_logprobs", "--dtype", engine.dtype]
    command += ["--worker-extension-cls", WORKER_CLASS]
    command += ["--allowed-origins", "[]"]  # no page in a browser may read what its posts to this machine answer
    if engine.max_model_len is not None:
        command += ["--max-model-len", str(engine.max_model_len)]
    if options.devices:
        share = SERVER_GPU_SHARE if engine.gpu_memory_utilization is None else engine.gpu_memory_utilization
        command += ["--tensor-parallel-size", str(engine.tensor_parallel), "--gpu-memory-utilization", str(share)]
    else:
        # A prompt cut into pieces stops vLLM on a CPU: it steps the row's generator back, which only CUDA's can.
        command.append("--no-enable-chunked-prefill")
    if engine.enforce_eager:
        command.append("--enforce-eager")
    if engine.max_lora_rank is not None:
        command += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(engine.max_lora_rank)]
    return [*command, *engine.args]


def server_environment(options: LaunchOptions, index: int, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of one server, from that of this process."""
    own = {
        "VLLM_SERVER_DEV_MODE": "1",  # the endpoints that load weights
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(WORKER_FOLDER), environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",  # the log of a server that was killed is complete
    }
    if "VLLM_RPC_BASE_PATH" not in environ and len(os.fsencode(tempfile.gettempdir())) > LONGEST_SOCKET_FOLDER:
        own["VLLM_RPC_BASE_PATH"] = "/tmp"
    if options.devices:
        seen = environ.get("CUDA_VISIBLE_DEVICES")
        names = seen.split(",") if seen else None
        try:
            mine = [str(device) if names is None else names[device].strip() for device in options.devices_of(index)]
        except IndexError:
            raise RolloutError(
                f"the GPUs {list(options.devices)} are wanted, but CUDA_VISIBLE_DEVICES={seen} shows {len(names or ())}"
                f"; give numbers from 0 to {len(names or ()) - 1}, which count what it shows"
            ) from None
        own["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        return {**environ, **own}
    own["VLLM_CPU_KVCACHE_SPACE"] = str(options.engine.cpu_cache_gib)
    if len(options.ports) > 1 and "VLLM_CPU_OMP_THREADS_BIND" not in environ:
        # left to itself, every server would bind its threads to the same cores
        own["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        own["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // len(options.ports)))
    return {**environ, **own}
