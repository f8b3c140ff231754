"""Sampled tokens per second of the rollout backends on a CPU, against `model.generate`, on the embedded model.

    python benchmarks/rollout.py [--repetitions 7] [--threads 1] [--out benchmarks/results/rollout.json]
    python benchmarks/rollout.py --vllm-python .venv-vllm/bin/python      # the vLLM backends, too

First the `TransformersBackend` against transformers' `generate`, in two cases: every answer has the full length, and
ragged answers, as a policy that ends its answers gives them. The 256 prompts have 4 to 40 tokens. `generate` gets them
as a user would, in order of arrival and left-padded, in one batch and in batches of 64, in the same precision and with
its key-value cache; a batch stops when its last row is finished. The ratio is to the faster of the two.

With `--vllm-python`, an interpreter that has vllm, then every backend on the ragged case, in float32 and bfloat16: with
the embedded model and with one of 1.3 million parameters. For each model and precision a server is started on the CPU,
and a process of that interpreter for vLLM in process, with the default `EngineOptions`, which compile (`--eager` does
not). A server, its engine and this client share the machine's cores. The engines of a model are all held at once, in
about 10 GiB.

Sides alternate, and their order rotates. Speeds are tokens per second of wall time, by median and extremes. With one
thread the tokens per second of this process' CPU time stand beside them where all work is done in it; other load
disturbs them less.
"""

import argparse
import contextlib
import copy
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.rollout.base import RolloutBackend
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.servers.backend import ServerOptions, VLLMServerBackend
from rltoolkit.rollout.servers.launch import ServerFleet
from rltoolkit.rollout.servers.launch_options import LaunchOptions
from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.run.versions import collect_versions
from rltoolkit.types import SamplingParams

PROMPTS = 256
SHORTEST, LONGEST = 4, 40
NEW_TOKENS = 100
SMALL_BATCH = 64
SHAPES: dict[str, dict[str, Any]] = {
    "embedded": {},
    "1.3M": {"hidden_size": 160, "intermediate_size": 480, "num_attention_heads": 5, "num_key_value_heads": 5},
}
PRECISIONS = ("float32", "bfloat16")
CHILD_ENDS_S = 60
REPLY = "measured "
"""Begins the lines that the process with vLLM answers with; vLLM writes lines of its own."""

Child = subprocess.Popen[str]
Side = Callable[[int], int]
"""Samples once with a seed; returns the number of tokens up to the end of each answer."""


class Speeds(NamedTuple):
    """Tokens per second of each repetition, by side."""

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vllm-python", help="an interpreter with vllm; measures the vLLM backends, too")
    parser.add_argument("--eager", action="store_true", help="start vLLM without compiling the model")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rollout.json")
    parser.add_argument("--in-process", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.in_process:
        answer_requests(*options.in_process, options.eager)
        return
    lengths = [len(prompt) for prompt in ragged_prompts()]
    record: dict[str, Any] = {
        "command": f"python benchmarks/rollout.py --repetitions {options.repetitions} --threads {options.threads}"
        + (" --vllm-python PYTHON" if options.vllm_python else "")
        + (" --eager" if options.eager else ""),
        "prompts": {"count": PROMPTS, "tokens": [min(lengths), statistics.median(lengths), max(lengths)]},
        "new_tokens": NEW_TOKENS,
        "threads": options.threads,
        "repetitions": options.repetitions,
        "cases": {
            name: against_generate(ragged, options) for name, ragged in {"full_length": False, "ragged": True}.items()
        },
        "backends": None,  # not measured
        "versions": collect_versions(),
    }
    if options.vllm_python:
        record["backends"] = {name: all_backends(name, options) for name in SHAPES}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(record)))
    print(f"written to {options.out}")


def against_generate(ragged: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Compare the `TransformersBackend` with `generate` in one batch and in smaller ones."""
    model = countdown_model(0, countdown_tokenizer()).eval()
    sides = {
        "backend": backend_side(transformers_backend(model, ragged)),
        "generate": generate_side(model, ragged, PROMPTS),
        f"generate_batches_of_{SMALL_BATCH}": generate_side(model, ragged, SMALL_BATCH),
    }
    speeds = alternate(sides, options.repetitions)
    others = [name for name in sides if name != "backend"]
    faster = max(others, key=lambda name: statistics.median(speeds.wall[name]))
    with_cpu = options.threads == 1  # with more of them CPU time also counts what threads wait for each other
    return {
        "dtype": "float32",
        "faster_generate": faster,
        "ratio_of_tokens_per_second": ratio(speeds.wall["backend"], speeds.wall[faster]),
        "ratio_of_tokens_per_cpu_second": ratio(speeds.cpu["backend"], speeds.cpu[faster]) if with_cpu else None,
        "tokens_per_second": {name: spread(values) for name, values in speeds.wall.items()},
        "tokens_per_cpu_second": {name: spread(values) for name, values in speeds.cpu.items()} if with_cpu else None,
    }


def all_backends(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compare every backend on ragged answers of one model."""
    model = countdown_model(0, countdown_tokenizer(), **SHAPES[shape]).eval()
    sides: dict[str, Side] = {}
    versions: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        model.save_pretrained(folder)
        countdown_tokenizer().save_pretrained(folder)
        engines = [EngineOptions(dtype=dtype, enforce_eager=options.eager) for dtype in PRECISIONS]
        say(f"{shape}: vLLM starts, {len(engines)} times in process and as many servers")  # at once, to save time
        servers = [stack.enter_context(start_server(folder, engine, options)) for engine in engines]
        children = [stack.enter_context(start_in_process(folder, engine, options)) for engine in engines]
        for engine, fleet, child in zip(engines, servers, children, strict=True):
            own = copy.deepcopy(model).to(getattr(torch, engine.dtype))
            sides[f"transformers generate, {engine.dtype}"] = generate_side(own, True, PROMPTS)
            sides[f"TransformersBackend, {engine.dtype}"] = backend_side(transformers_backend(own, True))
            versions = reply_of(child)
            sides[f"vLLM in process, {engine.dtype}"] = in_process_side(child)
            sides[f"vLLM server, {engine.dtype}"] = stack.enter_context(server_side(fleet, model))
        say(f"{shape}: sampling")
        speeds = alternate(sides, options.repetitions)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "engine": {"enforce_eager": options.eager, "other": "the defaults of EngineOptions"},
        "tokens_per_second": {name: spread(values) for name, values in speeds.wall.items()},
        "versions_of_vllm_python": versions,
    }


def say(text: str) -> None:
    """Tell how far it is: starting vLLM takes a while."""
    print(text, file=sys.stderr, flush=True)


def alternate(sides: dict[str, Side], repetitions: int) -> Speeds:
    """Time all sides in turn; each repetition begins with another one."""
    speeds = Speeds({name: [] for name in sides}, {name: [] for name in sides})
    names = list(sides)
    for repetition in range(repetitions + 1):
        for name in names[repetition % len(names) :] + names[: repetition % len(names)]:
            started = time.perf_counter(), time.process_time()
            tokens = sides[name](repetition)
            ended = time.perf_counter(), time.process_time()
            if repetition:  # the first is for warming up
                speeds.wall[name].append(tokens / (ended[0] - started[0]))
                speeds.cpu[name].append(tokens / (ended[1] - started[1]))
    return speeds


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """The median and the extremes of the ratios, repetition by repetition."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"median": round(statistics.median(ratios), 2), "min": round(min(ratios), 2), "max": round(max(ratios), 2)}


def spread(values: list[float]) -> dict[str, int]:
    """The median and the extremes."""
    return {"median": round(statistics.median(values)), "min": round(min(values)), "max": round(max(values))}


def table(record: dict[str, Any]) -> Iterator[str]:
    """Return the lines of a table with every measured speed."""
    yield f"{'tokens per second (wall time)':62} {'median':>7} {'min':>7} {'max':>7}"
    for name, case in {**record["cases"], **(record["backends"] or {})}.items():
        for side, speeds in case["tokens_per_second"].items():
            yield f"{name + ', ' + side:62} {speeds['median']:7} {speeds['min']:7} {speeds['max']:7}"
    for name, case in record["cases"].items():
        for what, key in (("wall", "ratio_of_tokens_per_second"), ("CPU", "ratio_of_tokens_per_cpu_second")):
            if case[key] is not None:
                yield f"{name}, backend over the faster generate, {what} time: {case[key]['median']}"


def ragged_prompts() -> list[list[int]]:
    """Return held-out problems one after the other, cut to 4 to 40 tokens each, in no order of length."""
    tokenizer = countdown_tokenizer()
    problems = [tokenizer(row["prompt"])["input_ids"] for row in countdown_rows("test", PROMPTS + LONGEST)]
    lengths = torch.randint(SHORTEST, LONGEST + 1, (PROMPTS,), generator=torch.Generator().manual_seed(0)).tolist()
    return [list(chain.from_iterable(problems[i : i + LONGEST]))[:length] for i, length in enumerate(lengths)]


def end_token(ragged: bool) -> int:
    """Return what ends an answer: EOS, or a token that is never sampled, so that every answer has the full length."""
    tokenizer = countdown_tokenizer()
    end: int = tokenizer.eos_token_id if ragged else len(tokenizer) + 1
    return end


def transformers_backend(model: Any, ragged: bool) -> TransformersBackend:
    """Return the backend in this process."""
    return TransformersBackend(model, eos_token_ids=[end_token(ragged)], pad_token_id=model.config.pad_token_id)


def backend_side(backend: RolloutBackend) -> Side:
    """Sample with any backend."""
    prompts, params = ragged_prompts(), SamplingParams(max_new_tokens=NEW_TOKENS)

    def sample(seed: int) -> int:
        answers = backend.generate(prompts, 1, params, range(seed * PROMPTS, (seed + 1) * PROMPTS))
        return sum(len(answer[0].token_ids) for answer in answers)

    return sample


def generate_side(model: Any, ragged: bool, batch: int) -> Side:
    """Sample with transformers' `generate`, `batch` prompts at a time in order of arrival, left-padded."""
    prompts, ends, tokenizer = ragged_prompts(), end_token(ragged), countdown_tokenizer()
    batches = [
        tokenizer.pad({"input_ids": prompts[i : i + batch]}, padding_side="left", return_tensors="pt")
        for i in range(0, len(prompts), batch)
    ]

    def sample(seed: int) -> int:
        torch.manual_seed(seed)
        tokens = 0
        for padded in batches:
            output = model.generate(
                **padded,
                do_sample=True,
                top_k=0,
                max_new_tokens=NEW_TOKENS,
                use_cache=True,
                eos_token_id=ends,
                pad_token_id=model.config.pad_token_id,
            )[:, padded["input_ids"].shape[1] :]
            ended = output == ends
            tokens += int((ended.cumsum(1) - ended.long() == 0).sum())
        return tokens

    return sample


@contextlib.contextmanager
def start_server(folder: str, engine: EngineOptions, options: argparse.Namespace) -> Iterator[ServerFleet]:
    """Start a vLLM server on the CPU, and do not wait for it."""
    with tempfile.TemporaryDirectory() as logs:
        python, ports = options.vllm_python, (free_port(),)
        launch = LaunchOptions(model=folder, python=python, ports=ports, engine=engine, log_dir=Path(logs))
        with ServerFleet(launch) as fleet:
            fleet.start()
            yield fleet


@contextlib.contextmanager
def server_side(fleet: ServerFleet, model: Any) -> Iterator[Side]:
    """Wait for a server and sample through the pool's backend."""
    fleet.wait_until_healthy()
    servers = ServerOptions(urls=fleet.urls, concurrency=PROMPTS)
    with VLLMServerBackend(servers, eos_token_ids=[end_token(True)]) as backend:
        backend.sync(model, 1)
        yield backend_side(backend)


@contextlib.contextmanager
def start_in_process(folder: str, engine: EngineOptions, options: argparse.Namespace) -> Iterator[Child]:
    """Start this script in the interpreter that has vllm; its first reply is its versions."""
    command = [options.vllm_python, __file__, "--threads", str(options.threads), "--in-process", folder, engine.dtype]
    command += ["--eager"] if engine.enforce_eager else []
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        try:
            child.wait(CHILD_ENDS_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def in_process_side(child: Child) -> Side:
    """Sample in the process with vLLM."""

    def sample(seed: int) -> int:
        child.stdin.write(f"{seed}\n")
        child.stdin.flush()
        return int(reply_of(child))

    return sample


def reply_of(child: Child) -> Any:
    """Read the next answer of the process with vLLM."""
    for line in child.stdout:
        if line.startswith(REPLY):
            return json.loads(line.removeprefix(REPLY))
    raise RuntimeError(f"the process with vLLM ended with status {child.wait()}; its errors are above")


def answer_requests(folder: str, dtype: str, eager: bool) -> None:
    """Sample with vLLM in this process once for each seed that comes in; answer with the number of tokens."""
    from rltoolkit.rollout.vllm_backend import VLLMBackend

    engine = EngineOptions(dtype=dtype, enforce_eager=eager)
    with VLLMBackend(folder, eos_token_ids=[end_token(True)], engine=engine) as backend:
        sample = backend_side(backend)
        print(REPLY + json.dumps(collect_versions()), flush=True)
        for line in sys.stdin:
            print(REPLY + json.dumps(sample(int(line))), flush=True)


def free_port() -> int:
    """Ask the system for a port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
