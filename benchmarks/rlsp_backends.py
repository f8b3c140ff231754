"""RLSP on Countdown by each rollout backend, over several seeds: the accuracy must not depend on who samples.

For each seed stage one of the quickstart recipe runs once; from its model PPO runs once per backend, with the same
prompts. vLLM's server is started here, on the CPU, by the interpreter given, and serves all seeds one after the other.
Figures of a run come from its summary.json and its metrics.jsonl. The two runs of a seed go on at the same time and
share the machine with the server: their seconds say nothing about who is faster (benchmarks/rollout.py does).

    python benchmarks/rlsp_backends.py --vllm-python .venv-vllm/bin/python --seeds 0 1 2
"""

import argparse
import json
import os
import platform
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rlsp_countdown import ROOT, mean_and_interval, run, start

from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.servers.launch import LaunchOptions, ServerFleet
from rltoolkit.run.versions import collect_versions

RESULT = ROOT / "benchmarks" / "results" / "rlsp_backends.json"
SHOWN = ("accuracy_before", "accuracy_after", "sampled_before", "sampled_after")
AFTER = ("accuracy_after", "sampled_after")
DIFFERENCE = "sampling/logp_difference_mean"


def stage_one(folder: Path, seed: int) -> Path:
    """The model of stage one of a seed, trained unless it is there."""
    place = folder / f"rlsp-{seed}"
    model = place / "checkpoints" / "sft" / "model"
    if not (model / "model.safetensors").exists():
        start(place, seed, ["train.max_steps=1", "train.warmup_steps=0", "eval.questions=1"])
    return model


def overrides(model: Path, url: str | None) -> list[str]:
    """What a run changes in the recipe: its start, and who samples."""
    base = ["sft=null", f"model.name_or_path={model}"]
    return base if url is None else [*base, "rollout.backend=vllm-server", f"rollout.servers.urls=[{url}]"]


def differences(folder: Path) -> dict[str, float] | None:
    """Mean and largest of the rollouts' mean differences between sampler and trainer; None where none is logged."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [line[DIFFERENCE] for line in lines if DIFFERENCE in line]
    return {"mean": statistics.fmean(found), "largest": max(found)} if found else None


def figures(folder: Path, seed: int, model: Path, url: str | None) -> dict[str, Any]:
    """Run or continue one run; its summary without what belongs to this machine."""
    summary = run(folder, seed, overrides(model, url))
    summary.pop("overrides")
    return summary | {"logp_difference": differences(folder)}


def table(by_backend: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Rows of Markdown: mean over seeds, plus or minus half the interval."""
    rows = ["| rollout.backend | " + " | ".join(SHOWN) + " |", "|---|" + "---|" * len(SHOWN)]
    for name, runs in by_backend.items():
        spread = [mean_and_interval([one[key] for one in runs]) for key in SHOWN]
        cells = [f"{mean:.3f} ± {half:.3f}" for mean, half in spread]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


def paired(by_backend: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By how much the server's runs end above those of transformers, seed by seed; mean and half of its interval."""
    result: dict[str, dict[str, Any]] = {}
    for key in AFTER:
        pairs = zip(by_backend["vllm-server"], by_backend["transformers"], strict=True)
        by_seed = [server[key] - own[key] for server, own in pairs]
        mean, half = mean_and_interval(by_seed)
        result[key] = {"by_seed": by_seed, "mean": mean, "half_of_interval": half}
    return result


def main() -> None:
    """Run everything, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", required=True, help="interpreter of an environment with vLLM")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "rlsp-backends")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    models = {seed: stage_one(folder, seed) for seed in options.seeds}
    launch = LaunchOptions(
        model=str(models[options.seeds[0]]),
        python=options.vllm_python,
        ports=(options.port,),
        engine=EngineOptions(dtype="float32"),
        log_dir=folder,
    )
    with ServerFleet(launch) as fleet, ThreadPoolExecutor(2) as executor:
        fleet.wait_until_healthy()
        urls = {"transformers": None, "vllm-server": fleet.urls[0]}
        by_backend: dict[str, list[dict[str, Any]]] = {name: [] for name in urls}
        for seed, model in models.items():  # both backends of a seed at the same time: they share the machine alike
            pending = {
                name: executor.submit(figures, folder / f"{name}-{seed}", seed, model, url)
                for name, url in urls.items()
            }
            for name, future in pending.items():
                by_backend[name].append(future.result())
    difference = paired(by_backend)
    lines = table(by_backend)
    lines += [
        f"{key}, server - transformers: {d['mean']:+.3f} ± {d['half_of_interval']:.3f}" for key, d in difference.items()
    ]
    record = {
        "command": "python benchmarks/rlsp_backends.py --vllm-python PYTHON --seeds " + " ".join(map(str, models)),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "runs_at_a_time": 2},
        "versions": collect_versions(),
        "seeds": options.seeds,
        "runs": by_backend,
        "server_minus_transformers": difference,
        "table": lines,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write("\n".join([*lines, f"written: {RESULT}", ""]))


if __name__ == "__main__":
    main()
