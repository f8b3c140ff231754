"""Sampled tokens per second of the transformers backend against `model.generate`, on the embedded model.

    python benchmarks/rollout.py [--repetitions 7] [--threads 1] [--out benchmarks/results/rollout.json]

Two cases on the same 256 held-out prompts: every answer has the full length, and ragged answers, as a policy that
ends its answers gives them. `generate` samples in the same batch, left-padded, and both stop when all rows are
finished. Sides alternate. Besides wall time the CPU time of the process is given, which suffers less from other load.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.run.versions import collect_versions
from rltoolkit.types import SamplingParams

PROMPTS = 256
NEW_TOKENS = 100


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rollout.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = {"full_length": False, "ragged": True}
    record = {
        "prompts": PROMPTS,
        "new_tokens": NEW_TOKENS,
        "threads": options.threads,
        "repetitions": options.repetitions,
        "cases": {name: measure(ragged, options.repetitions) for name, ragged in cases.items()},
        "versions": collect_versions(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    for name, case in record["cases"].items():
        print(f"{name}: {json.dumps(case)}")
    print(f"written to {options.out}")


def measure(ragged: bool, repetitions: int) -> dict[str, object]:
    """Time both sides in turn; tokens per second as medians with their extremes."""
    sides = make_sides(ragged)
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for repetition in range(repetitions + 1):
        for name, side in sides.items():
            started = time.perf_counter(), time.process_time()
            tokens = side(repetition)
            if repetition:  # the first is for warming up
                wall[name].append(tokens / (time.perf_counter() - started[0]))
                cpu[name].append(tokens / (time.process_time() - started[1]))
    ratio = statistics.median(a / b for a, b in zip(cpu["backend"], cpu["generate"], strict=True))
    return {
        "ratio": round(ratio, 2),
        "tokens_per_cpu_second": {name: spread(values) for name, values in cpu.items()},
        "tokens_per_second": {name: spread(values) for name, values in wall.items()},
    }


def spread(values: list[float]) -> dict[str, int]:
    """The median and the extremes."""
    return {"median": round(statistics.median(values)), "min": round(min(values)), "max": round(max(values))}


def make_sides(ragged: bool) -> dict[str, Callable[[int], int]]:
    """Both ways to sample once with a seed; each returns the number of tokens up to the end of each answer."""
    tokenizer = countdown_tokenizer()
    model = countdown_model(0, tokenizer).eval()
    prompts = [tokenizer(row["prompt"])["input_ids"] for row in countdown_rows("test", PROMPTS)]
    eos = tokenizer.eos_token_id
    ends = eos if ragged else len(tokenizer) + 1  # a token that is never sampled: no answer ends before its limit
    backend = TransformersBackend(model, eos_token_ids=[ends], pad_token_id=tokenizer.pad_token_id)
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")

    def ours(seed: int) -> int:
        params = SamplingParams(max_new_tokens=NEW_TOKENS)
        answers = backend.generate(prompts, 1, params, range(seed * PROMPTS, (seed + 1) * PROMPTS))
        return sum(len(answer[0].token_ids) for answer in answers)

    def theirs(seed: int) -> int:
        torch.manual_seed(seed)
        output = model.generate(
            **padded,
            do_sample=True,
            top_k=0,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )[:, padded["input_ids"].shape[1] :]
        ended = output == ends
        return int((ended.cumsum(1) - ended.long() == 0).sum())

    return {"backend": ours, "generate": theirs}


if __name__ == "__main__":
    main()
