"""Sampled tokens per second of every rollout engine on one device, as a fraction of what its memory allows.

    python benchmarks/gpu/rollout.py                    # bfloat16, 0.5B parameters, on CUDA
    python benchmarks/gpu/rollout.py --size 1.5b
    python benchmarks/gpu/rollout.py --size tiny        # a smoke test, also without a GPU

Engines: transformers' `generate`, left-padded in order of arrival; transformers' continuous batching; the
`TransformersBackend`; vLLM in process and a vLLM server, where vllm can be imported. All of them sample the same
ragged prompts of a Qwen2 with random weights at temperature 1, in turn, once per repetition.

Random weights end no answer, so the lengths are forced, the same ones for every engine: row i draws `limits[i]` tokens,
from a fixed exponential distribution (many short answers, a few at the limit), and no token of the vocabulary ends it
before. `generate` gets the limits by a stopping criterion with one verdict per row, continuous batching and vLLM by
the limit of each request, the `TransformersBackend` by a hook that makes its end-of-sequence token certain at the last
place of a row and impossible before. An engine that draws other lengths is recorded as failed, without a speed.

vLLM is started as the toolkit starts it. Outside the clock, before each repetition: the allocator's unused memory is
given back, prefix caches are emptied, clients and sessions are opened. The order of the engines rotates.

The ceiling counts bytes: a decode step reads every weight once (of an untied embedding only the drawn rows, which are
left out) and the keys and values of all rows still running; the bandwidth is that of copying a large buffer on the
device (bytes read plus bytes written, over the time). All rows are taken to run at once; the prompts cost one more pass
over the weights and the writing of their keys and values. Arithmetic, logits and sampling are free in it, so engines
stay below it; but it is no law, since memory that is only read can be faster than memory that is copied.
"""

import argparse
import asyncio
import contextlib
import copy
import gc
import importlib.util
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rollout_accounting import (
    SIZES,
    Size,
    Work,
    ceiling_tokens_per_second,
    decode_traffic,
    extent,
    failed,
    make_work,
    summary,
)
from torch import Tensor, nn
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, StoppingCriteria, StoppingCriteriaList

from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.run.versions import collect_versions
from rltoolkit.types import SamplingParams

RESULT = Path(__file__).parents[1] / "results" / "gpu_rollout.json"
NOT_INSTALLED = "not installed"
ANSWER_S = 600
HOST_SHARE = 0.02
"""Of the host's memory for continuous batching in a smoke test: it takes its share at once."""
SURE = 1e4
"""A logit that leaves all others without probability; its negative is never drawn."""

PAD = 0
"""What `generate` appends to rows that have ended; a hook keeps it from being drawn."""


@dataclass(frozen=True)
class Engine:
    """Something to be timed."""

    draw: Callable[[int], list[int]]
    """Draws all answers once with a seed; returns the number of tokens of each row, in order."""
    session: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    """Around each `draw`, outside the clock."""


def copy_bandwidth(device: torch.device, size: int, repetitions: int = 10) -> float:
    """Measure bytes read plus bytes written per second while copying `size` bytes on the device; the median."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates = []
    for _ in range(repetitions + 1):
        synchronize()
        begun = time.perf_counter()
        target.copy_(source)
        synchronize()
        rates.append(2 * size / (time.perf_counter() - begun))
    return statistics.median(rates[1:])


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class RowLimits(StoppingCriteria):  # type: ignore[misc]
    """Ends each row of `generate` at its own number of tokens."""

    eos_token_id = None  # having one makes `generate` append its pad token to rows that have ended

    def __init__(self, ends: Tensor) -> None:
        """`ends` (B,) are lengths with the padded prompt."""
        self._ends = ends

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: Any) -> Tensor:
        """Return (B,) whether a row is complete."""
        return input_ids.shape[1] >= self._ends


class EndAtLimit:
    """A forward hook that ends the rows of a `TransformersBackend` at their limits by its end-of-sequence token.

    Rows are known by their prompts when a new cache comes, and followed through the cache's own reordering.
    """

    def __init__(self, work: Work, eos: int) -> None:
        """`eos` is the token that ends a row."""
        self._limits = {tuple(prompt): limit for prompt, limit in zip(work.prompts, work.limits, strict=True)}
        self._eos = eos
        self._cache: Any = None
        self._last = torch.empty(0)

    def __call__(self, _model: nn.Module, _args: Any, inputs: dict[str, Any], output: Any) -> None:
        """Write the end-of-sequence token's logit of every row."""
        cache, positions = inputs["past_key_values"], inputs["position_ids"][:, -1]
        if cache is not self._cache:
            self._begin(cache, inputs, positions)
        output.logits[:, -1, self._eos] = torch.where(positions >= self._last, SURE, -SURE).to(output.logits.dtype)

    def _begin(self, cache: Any, inputs: dict[str, Any], positions: Tensor) -> None:
        rows = zip(inputs["input_ids"].tolist(), positions.tolist(), strict=True)
        limits = torch.tensor([self._limits[tuple(ids[-1 - last :])] for ids, last in rows], device=positions.device)
        self._cache, self._last = cache, positions + limits - 1
        reorder = cache.batch_select_indices

        def follow(indices: Tensor) -> None:
            self._last = self._last[indices]
            reorder(indices)

        cache.batch_select_indices = follow


@contextlib.contextmanager
def generate_engine(model: Any, work: Work, _options: argparse.Namespace) -> Iterator[Engine]:
    """Yield transformers' `generate`: one left-padded batch in order of arrival, its own cache."""
    width = max(map(len, work.prompts))
    device = model.device
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in work.prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in work.prompts], device=device)
    stop = StoppingCriteriaList([RowLimits(torch.tensor(work.limits, device=device) + width)])

    def never_pad(_model: nn.Module, _args: Any, output: Any) -> None:
        output.logits[:, -1, PAD] = -SURE

    def draw(seed: int) -> list[int]:
        torch.manual_seed(seed)
        hook = model.register_forward_hook(never_pad)
        try:
            output = model.generate(
                ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=max(work.limits),
                stopping_criteria=stop, pad_token_id=PAD,
            )  # fmt: skip
        finally:
            hook.remove()
        lengths: list[int] = (output[:, width:] != PAD).sum(1).tolist()
        return lengths

    yield Engine(draw)


@contextlib.contextmanager
def continuous_engine(model: Any, work: Work, options: argparse.Namespace) -> Iterator[Engine]:
    """Yield transformers' continuous batching: what `generate_batch` does, with the limit of each request.

    It has a copy of the model to itself, because it replaces the attention; it is set up once, as for a long run.
    """
    from transformers import ContinuousBatchingConfig
    from transformers.generation.continuous_batching.utils import WorkloadHints

    own = copy.deepcopy(model)
    sampling = GenerationConfig(do_sample=True, top_k=0, eos_token_id=-1, pad_token_id=0)
    share = options.memory_share if own.device.type == "cuda" else HOST_SHARE
    sizes = ContinuousBatchingConfig(max_memory_percent=share, allow_block_sharing=False)
    hints = WorkloadHints(max(map(len, work.prompts)), max(work.limits), len(work.prompts))

    manager: Any = None

    @contextlib.contextmanager
    def session() -> Iterator[None]:
        nonlocal manager
        with own.continuous_batching_context_manager(
            sampling, timeout=5, continuous_batching_config=sizes, persistent_manager=True, workload_hints=hints
        ) as manager:
            yield

    def draw(_seed: int) -> list[int]:
        order = [manager.add_request(p, max_new_tokens=n) for p, n in zip(work.prompts, work.limits, strict=True)]
        lengths: dict[str, int] = {}
        while len(lengths) < len(order):
            result = manager.get_result(timeout=1)
            if result is None and not manager.is_running():
                raise RuntimeError("continuous batching stopped before all answers were there")
            if result is not None and result.is_finished():
                lengths[result.request_id] = len(result.generated_tokens)
        return [lengths[name] for name in order]

    try:
        yield Engine(draw, session)
    finally:
        own.destroy_cached_continuous_batching_manager()


@contextlib.contextmanager
def backend_engine(model: Any, work: Work, options: argparse.Namespace) -> Iterator[Engine]:
    """Yield the `TransformersBackend`."""
    eos = 2
    backend = TransformersBackend(model, eos_token_ids=[eos], pad_token_id=0, batch_tokens=options.batch_tokens)
    params = SamplingParams(max_new_tokens=max(work.limits))

    def draw(seed: int) -> list[int]:
        hook = model.register_forward_hook(EndAtLimit(work, eos), with_kwargs=True)
        try:
            seeds = range(seed * len(work.prompts), (seed + 1) * len(work.prompts))
            answers = backend.generate(work.prompts, 1, params, seeds)
        finally:
            hook.remove()
        return [len(answer.token_ids) for (answer,) in answers]

    yield Engine(draw)


@contextlib.contextmanager
def vllm_engine(model: Any, work: Work, options: argparse.Namespace) -> Iterator[Engine]:
    """Yield the `VLLMBackend`, in this process; the limits replace its end token in the requests that it makes."""
    from rltoolkit.rollout.vllm_backend import VLLMBackend

    params = SamplingParams(max_new_tokens=max(work.limits))
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        with VLLMBackend(folder, eos_token_ids=[2], engine=engine_options(model, options)) as backend:
            engine = backend._llm
            generate = engine.generate

            def with_limits(prompts: Any, requests: Any, **rest: Any) -> Any:
                for request, limit in zip(requests, work.limits, strict=True):
                    request.max_tokens, request.stop_token_ids = limit, []
                    request._all_stop_token_ids.clear()
                return generate(prompts, requests, **rest)

            @contextlib.contextmanager
            def session() -> Iterator[None]:
                if not engine.reset_prefix_cache():
                    raise RuntimeError("vLLM did not empty its prefix cache")
                yield

            def draw(seed: int) -> list[int]:
                seeds = range(seed * len(work.prompts), (seed + 1) * len(work.prompts))
                return [len(answer.token_ids) for (answer,) in backend.generate(work.prompts, 1, params, seeds)]

            engine.generate = with_limits
            yield Engine(draw, session)
            del engine.generate


@contextlib.contextmanager
def server_engine(model: Any, work: Work, options: argparse.Namespace) -> Iterator[Engine]:
    """Yield one vLLM server, all requests at once, by the client and in the form in which the backend sends them."""
    from rltoolkit.rollout.servers.http import HttpClient
    from rltoolkit.rollout.servers.launch import ServerFleet
    from rltoolkit.rollout.servers.launch_options import LaunchOptions
    from rltoolkit.rollout.vllm_sampling import completion_request

    async def ask(i: int, seed: int) -> int:
        params = SamplingParams(max_new_tokens=work.limits[i])
        body = completion_request("policy", work.prompts[i], params, 1, seed, eos_token_ids=())
        answer = await client.request("POST", "/v1/completions", body, timeout_s=ANSWER_S)
        return len(answer.json()["choices"][0]["token_ids"])

    async def ask_all(seed: int) -> list[int]:
        return await asyncio.gather(*(ask(i, seed + i) for i in range(len(work.prompts))))

    @contextlib.contextmanager
    def session() -> Iterator[None]:
        answer = loop.run(client.request("POST", "/reset_prefix_cache", timeout_s=ANSWER_S)).json()
        if answer["success"] is not True:
            raise RuntimeError("the server did not empty its prefix cache")
        yield

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        save(model, folder)
        fleet = ServerFleet(
            LaunchOptions(
                model=folder, python=sys.executable, ports=(free_port(),),
                devices=(0,) if model.device.type == "cuda" else (), engine=engine_options(model, options),
                log_dir=Path(folder) / "logs",
            )
        )  # fmt: skip
        stack.enter_context(fleet)
        fleet.start()
        fleet.wait_until_healthy()
        loop = stack.enter_context(asyncio.Runner())
        client = HttpClient(fleet.urls[0])
        stack.callback(client.close)
        yield Engine(lambda seed: loop.run(ask_all(seed * len(work.prompts))), session)


def engine_options(model: Any, options: argparse.Namespace) -> Any:
    """Start vLLM as the toolkit does, with its share of the memory."""
    from rltoolkit.rollout.engine import EngineOptions

    share = options.memory_share if model.device.type == "cuda" else None
    return EngineOptions(dtype=str(model.dtype).removeprefix("torch."), gpu_memory_utilization=share)


def save(model: Any, folder: str) -> None:
    """Write the model with a tokenizer that has a word for each of its tokens, which vLLM wants to see."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(model.config.vocab_size)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="t0").save_pretrained(folder)


def free_port() -> int:
    """Ask the system for a port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


ENGINES = {
    "transformers generate": generate_engine,
    "transformers continuous batching": continuous_engine,
    "TransformersBackend": backend_engine,
    "vLLM in process": vllm_engine,
    "vLLM server": server_engine,
}
NEEDS_VLLM = {"vLLM in process", "vLLM server"}


def measure(model: Any, work: Work, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Time all engines in turn; seconds of each repetition, or what kept an engine from giving a number."""
    outcomes: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in ENGINES}
    running: dict[str, Engine] = {}
    with contextlib.ExitStack() as stack:
        for name, make in ENGINES.items():
            if name in NEEDS_VLLM and importlib.util.find_spec("vllm") is None:
                outcomes[name] = {"outcome": NOT_INSTALLED}
                continue
            try:
                running[name] = stack.enter_context(make(model, work, options))
            except Exception as error:  # noqa: BLE001  a foreign engine may raise anything; the others are still measured
                outcomes[name] = failed(error)
        names = list(running)
        for repetition in range(options.repetitions + 1):  # the first one warms up
            for name in names[repetition % len(names) :] + names[: repetition % len(names)]:
                if name not in running:
                    continue
                try:
                    seconds = timed(running[name], repetition, work)
                except Exception as error:  # noqa: BLE001  see above
                    outcomes[name] = failed(error)
                    del running[name]
                    continue
                if repetition:
                    outcomes[name]["seconds"].append(seconds)
    return outcomes


def timed(engine: Engine, seed: int, work: Work) -> float:
    """Let an engine draw everything once; return its seconds. RuntimeError if it drew other lengths."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with engine.session():
        synchronize()
        begun = time.perf_counter()
        lengths = engine.draw(seed)
        synchronize()
        seconds = time.perf_counter() - begun
    if lengths != work.limits:
        raise RuntimeError(f"drew {sum(lengths)} tokens in all, not the {work.tokens} asked for, or other lengths")
    return seconds


def build(size: Size) -> Any:
    """Make the model with random weights, in bfloat16, on the GPU if there is one."""
    torch.manual_seed(0)
    config = Qwen2Config(bos_token_id=None, eos_token_id=None, pad_token_id=None, **size.shape)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(config).to(torch.bfloat16).eval()
    model.generation_config = GenerationConfig()
    return model


def main() -> None:
    """Measure, write the JSON, print a short table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="0.5b")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=1 << 20, help="of the TransformersBackend; one batch")
    parser.add_argument("--memory-share", type=float, default=0.25, help="of the GPU, for each engine with a pool")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    size = SIZES[options.size]
    work, model = make_work(size), build(size)
    bandwidth = copy_bandwidth(model.device, size.copied_bytes)
    traffic = decode_traffic(model)
    ceiling = ceiling_tokens_per_second(work, traffic, bandwidth)
    outcomes = measure(model, work, options)
    record = {
        "command": f"python benchmarks/gpu/rollout.py --size {options.size} --repetitions {options.repetitions}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": collect_versions(),
        "options": {key: str(value) for key, value in vars(options).items() if key != "out"},
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(model.dtype),
        "prompts": {"count": len(work.prompts), "tokens": extent([len(p) for p in work.prompts])},
        "answers": {"tokens": work.tokens, "lengths": extent(work.limits)},
        "copy_gb_per_second": round(bandwidth / 1e9, 1),
        "traffic": asdict(traffic),
        "ceiling_tokens_per_second": round(ceiling),
        "vllm": "the defaults of EngineOptions, except dtype and gpu_memory_utilization",
        "engines": {name: summary(outcome, work.tokens, ceiling) for name, outcome in outcomes.items()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"ceiling {ceiling:.0f} tokens/s at {bandwidth / 1e9:.0f} GB/s of copying")
    for name, row in record["engines"].items():
        rate = row.get("tokens_per_second")
        said = f"{rate['median']} tokens/s, {row['fraction_of_ceiling']:.2%}" if rate else row["outcome"]
        print(f"{name:34} {said}")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
