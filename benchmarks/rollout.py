"""Sampled tokens per second of the rollout backends on a CPU, against `model.generate`, on the embedded model.

    python benchmarks/rollout.py [--repetitions 7] [--threads 1] [--out benchmarks/results/rollout.json]
    python benchmarks/rollout.py --vllm-python .venv-vllm/bin/python      # the vLLM backends, too

First the `TransformersBackend` against transformers' `generate`, in two cases: every answer has the full length, and
ragged answers, as a policy that ends its answers gives them. The 256 prompts have 4 to 40 tokens. `generate` gets them
as a user would, in order of arrival and left-padded, in one batch and in batches of 64, in the same precision and with
its key-value cache; a batch stops when its last row is finished. The ratio is to the faster of the two.

With `--vllm-python`, an interpreter that has vllm, then every backend on the ragged case: with the embedded model and
with one of 1.3 million parameters. A server is started on the CPU for each model and precision; vLLM in process runs
in a process of that interpreter. vLLM keeps to one core for its arithmetic, and a server has a second process for HTTP.

Sides alternate. Besides wall time the CPU time of the process is given where all work is done in this one; it suffers
less from other load.
"""

import argparse
import contextlib
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
REPLY = "measured "
"""Begins the lines that the process with vLLM answers with; vLLM writes lines of its own."""

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
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rollout.json")
    parser.add_argument("--in-process", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.in_process:
        answer_requests(*options.in_process)
        return
    lengths = [len(prompt) for prompt in ragged_prompts()]
    record: dict[str, Any] = {
        "command": f"python benchmarks/rollout.py --repetitions {options.repetitions} --threads {options.threads}"
        + (" --vllm-python PYTHON" if options.vllm_python else ""),
        "prompts": {"count": PROMPTS, "tokens": [min(lengths), statistics.median(lengths), max(lengths)]},
        "new_tokens": NEW_TOKENS,
        "dtype": "float32",
        "threads": options.threads,
        "repetitions": options.repetitions,
        "cases": {
            name: against_generate(ragged, options.repetitions)
            for name, ragged in {"full_length": False, "ragged": True}.items()
        },
        "versions": collect_versions(),
    }
    for name, case in record["cases"].items():
        print(f"{name}: {json.dumps(case)}")
    if options.vllm_python:
        record["backends"] = {name: all_backends(name, options) for name in SHAPES}
        for name, case in record["backends"].items():
            print(f"backends, {name}: {json.dumps(case)}")
    else:
        record["backends"] = None  # not measured
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


def against_generate(ragged: bool, repetitions: int) -> dict[str, object]:
    """Compare the `TransformersBackend` with `generate` in one batch and in smaller ones."""
    model = countdown_model(0, countdown_tokenizer()).eval()
    sides = {
        "backend": backend_side(transformers_backend(model, ragged)),
        "generate": generate_side(model, ragged, PROMPTS),
        f"generate_batches_of_{SMALL_BATCH}": generate_side(model, ragged, SMALL_BATCH),
    }
    speeds = alternate(sides, repetitions)
    faster = max(list(sides)[1:], key=lambda name: statistics.median(speeds.cpu[name]))
    ratio = statistics.median(a / b for a, b in zip(speeds.cpu["backend"], speeds.cpu[faster], strict=True))
    return {
        "ratio": round(ratio, 2),
        "ratio_to": faster,
        "tokens_per_cpu_second": {name: spread(values) for name, values in speeds.cpu.items()},
        "tokens_per_second": {name: spread(values) for name, values in speeds.wall.items()},
    }


def all_backends(shape: str, options: argparse.Namespace) -> dict[str, object]:
    """Compare every backend on ragged answers of one model."""
    model = countdown_model(0, countdown_tokenizer(), **SHAPES[shape]).eval()
    versions: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        model.save_pretrained(folder)
        countdown_tokenizer().save_pretrained(folder)
        sides = {
            "generate, float32": generate_side(model, True, PROMPTS),
            "transformers, float32": backend_side(transformers_backend(model, True)),
        }
        for dtype in PRECISIONS:
            side, versions = stack.enter_context(in_process_side(folder, dtype, options.vllm_python))
            sides[f"vllm, {dtype}"] = side
            sides[f"vllm-server, {dtype}"] = stack.enter_context(server_side(folder, dtype, options.vllm_python, model))
        speeds = alternate(sides, options.repetitions)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_second": {name: spread(values) for name, values in speeds.wall.items()},
        "versions_of_vllm_python": versions,
    }


def alternate(sides: dict[str, Side], repetitions: int) -> Speeds:
    """Time all sides in turn."""
    speeds = Speeds({name: [] for name in sides}, {name: [] for name in sides})
    for repetition in range(repetitions + 1):
        for name, side in sides.items():
            started = time.perf_counter(), time.process_time()
            tokens = side(repetition)
            if repetition:  # the first is for warming up
                speeds.wall[name].append(tokens / (time.perf_counter() - started[0]))
                speeds.cpu[name].append(tokens / (time.process_time() - started[1]))
    return speeds


def spread(values: list[float]) -> dict[str, int]:
    """The median and the extremes."""
    return {"median": round(statistics.median(values)), "min": round(min(values)), "max": round(max(values))}


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
def server_side(folder: str, dtype: str, python: str, model: Any) -> Iterator[Side]:
    """Start a vLLM server on the CPU and sample through the pool's backend."""
    from rltoolkit.rollout.servers.backend import ServerOptions, VLLMServerBackend
    from rltoolkit.rollout.servers.launch import ServerFleet
    from rltoolkit.rollout.servers.launch_options import LaunchOptions

    with contextlib.ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = EngineOptions(dtype=dtype)
        launch = LaunchOptions(model=folder, python=python, ports=(free_port(),), engine=engine, log_dir=logs)
        fleet = stack.enter_context(ServerFleet(launch))
        fleet.start()
        fleet.wait_until_healthy()
        options = ServerOptions(urls=fleet.urls, concurrency=PROMPTS)
        backend = stack.enter_context(VLLMServerBackend(options, eos_token_ids=[end_token(True)]))
        backend.sync(model, 1)
        yield backend_side(backend)


@contextlib.contextmanager
def in_process_side(folder: str, dtype: str, python: str) -> Iterator[tuple[Side, dict[str, Any]]]:
    """Start this script in the interpreter that has vllm; yield its side and its versions."""
    command = [python, __file__, "--in-process", folder, dtype]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        versions = reply_of(child)

        def sample(seed: int) -> int:
            child.stdin.write(f"{seed}\n")
            child.stdin.flush()
            return int(reply_of(child))

        yield sample, versions
    finally:
        child.stdin.close()
        child.wait(60)


def reply_of(child: "subprocess.Popen[str]") -> Any:
    """Read the next answer of the process with vLLM."""
    for line in child.stdout:
        if line.startswith(REPLY):
            return json.loads(line.removeprefix(REPLY))
    raise RuntimeError(f"the process with vLLM ended with status {child.wait()}; its errors are above")


def answer_requests(folder: str, dtype: str) -> None:
    """Sample with vLLM in this process once for each seed that comes in; answer with the number of tokens."""
    from rltoolkit.rollout.vllm_backend import VLLMBackend

    with VLLMBackend(folder, eos_token_ids=[end_token(True)], engine=EngineOptions(dtype=dtype)) as backend:
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
