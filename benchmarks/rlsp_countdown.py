"""RLSP on Countdown over several seeds, with its ablations: the table of recipes/rlsp/README.md.

For each seed the quickstart recipe runs as a whole; the ablations start from the same stage-one model and prompts and
differ in what their name says. "SFT continued" imitates on for as long as RLSP took. Evaluations are on the same 500
held-out problems with the same random numbers. Figures of a run come from its summary.json, nothing is typed in.

    python benchmarks/rlsp_countdown.py --seeds 0 1 2 --parallel 2
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scipy import stats

from rltoolkit.embedded.countdown import attempts
from rltoolkit.run.versions import collect_versions

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "rlsp_countdown.json"
RECIPE = "recipes/rlsp/quickstart.yaml"
ABLATIONS = {
    "no exploration": ["rewards.exploration=null"],
    "paper_compat": [
        "train.paper_compat=true",
        "train.length_constant=2",
        "rewards.exploration={kind: length, target_tokens: 100}",
    ],
}
WHEN = ("before", "after")
SHOWN = (
    "accuracy_before",
    "accuracy_after",
    "sampled_before",
    "sampled_after",
    "accuracy_after_attempts",
    "sampled_after_attempts",
    "train_seconds",
)


def run(folder: Path, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Run or continue the recipe, unless it is finished, and return its summary; the log lies beside the run."""
    if not (folder / "summary.json").exists():
        start(folder, seed, overrides)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    stopping = {when: stopping_rates(folder / "eval" / f"evaluate_{when}.countdown.sampled.jsonl") for when in WHEN}
    return {"overrides": list(overrides), **summary, "stopping": stopping}


def start(folder: Path, seed: int, overrides: Sequence[str], recipe: str = RECIPE) -> None:
    """Start the training command and wait for its end."""
    arguments = [recipe, f"seed={seed}", f"output_dir={folder}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    with folder.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-m", "rltoolkit.train", *arguments]
        subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)


def stopping_rates(samples: Path) -> dict[str, float]:
    """How often a sampled response ends its search after a true hit, and after a miss; false marks count as misses."""
    counts = {"hit": [0, 0], "miss": [0, 0]}  # attempts, and those that were the last before the box
    for line in samples.read_text().splitlines():
        row = json.loads(line)
        a, b, c = (int(number) for number in row["prompt"].strip().partition(">")[0].split(","))
        target = int(row["prompt"].strip().partition(">")[2])
        values = {attempt.steps: attempt.value for attempt in attempts((a, b, c))}
        shown = row["response"].split("\n")
        for place, text in enumerate(shown[:-1]):
            count = counts["hit" if values.get(text.partition("?")[0]) == target else "miss"]
            count[0] += 1
            count[1] += place == len(shown) - 2 and "boxed" in shown[-1]
    return {f"stop_after_{kind}": last / max(1, seen) for kind, (seen, last) in counts.items()}


def compared(folder: Path, seed: int, full: dict[str, Any]) -> dict[str, list[str]]:
    """Name and overrides of what a seed's finished run is compared with, from the same stage-one model."""
    base = ["sft=null", f"model.name_or_path={folder}/rlsp-{seed}/checkpoints/sft/model"]
    steps = json.loads((folder / f"rlsp-{seed}/manifest.json").read_text())["phases"]["sft"]["result"]
    same_time = round(full["train_seconds"] / steps["seconds"] * steps["steps"])
    continued = ["method=sft", "data=null", "rewards=null", "train={}", base[1], f"sft.train.max_steps={same_time}"]
    continued += ["sft.train.learning_rate=1.0e-3", "eval.every_steps=null"]
    return {name: [*base, *overrides] for name, overrides in ABLATIONS.items()} | {"SFT continued": continued}


def all_runs(folder: Path, seeds: Sequence[int], parallel: int) -> list[dict[str, dict[str, Any]]]:
    """Every run of every seed, `parallel` at a time; results by name, in the order of the seeds."""
    with ThreadPoolExecutor(parallel) as executor:
        full = {seed: executor.submit(run, folder / f"rlsp-{seed}", seed, []) for seed in seeds}
        others: dict[int, dict[str, Future[dict[str, Any]]]] = {}
        for seed in seeds:
            others[seed] = {
                name: executor.submit(run, folder / f"{name.replace(' ', '-')}-{seed}", seed, overrides)
                for name, overrides in compared(folder, seed, full[seed].result()).items()
            }
        return [{"RLSP": full[seed].result()} | {n: f.result() for n, f in others[seed].items()} for seed in seeds]


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % t interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, float(half)


def table(by_seed: Iterable[dict[str, dict[str, Any]]]) -> list[str]:
    """Rows of Markdown: mean over seeds, plus or minus half the interval."""
    seeds = list(by_seed)
    rows = ["| run | " + " | ".join(SHOWN) + " |", "|---|" + "---|" * len(SHOWN)]
    for name in seeds[0]:
        cells = []
        for key in SHOWN:
            values = [seed[name][key] for seed in seeds if key in seed[name]]
            mean, half = mean_and_interval(values) if values else (float("nan"), float("nan"))
            cells.append(f"{mean:.3f} ± {half:.3f}" if mean < 100 else f"{mean:.0f} ± {half:.0f}")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    """Run everything, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "rlsp-countdown-seeds")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    by_seed = all_runs(folder, options.seeds, options.parallel)
    lines = table(by_seed)
    record = {
        "command": "python benchmarks/rlsp_countdown.py " + " ".join(sys.argv[1:]),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "threads_per_run": 1,
            "parallel": options.parallel,
        },
        "versions": collect_versions(),
        "seeds": options.seeds,
        "runs": {str(seed): _without_paths(runs) for seed, runs in zip(options.seeds, by_seed, strict=True)},
        "table": lines,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(lines))
    print(f"written: {RESULT}")


def _without_paths(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same without the start model's path, which belongs to this machine."""
    return {
        name: {**summary, "overrides": [o for o in summary["overrides"] if not o.startswith("model.name_or_path")]}
        for name, summary in runs.items()
    }


if __name__ == "__main__":
    main()
