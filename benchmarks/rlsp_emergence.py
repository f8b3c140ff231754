"""Does an exploration reward make a policy search? RLSP on Countdown with four exploration rewards, three seeds each.

First the start is looked at: the model of stage one is allowed k attempts (it may not give up before, and a hit ends
the search), k = 1, 2, ..., beside k different attempts at random: where persistence pays there is something to teach.
Then PPO runs from that model, with the same prompts and seeds, without exploration reward, paid for length, paid for
distinct attempts, and with decoupled advantage streams under a constraint. Every run is evaluated on the same 500
held-out problems every 64 steps. Figures come from the runs' own files; a run that is finished is not repeated.

    python benchmarks/rlsp_emergence.py --seeds 0 1 2 --parallel 2
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rlsp_backends import stage_one
from rlsp_countdown import ROOT, mean_and_interval, start

from rltoolkit.data.tokenizer import load_tokenizer
from rltoolkit.embedded.countdown import attempts, countdown_rows
from rltoolkit.rollout.base import request_seed
from rltoolkit.rollout.load import load_transformers_backend
from rltoolkit.run.versions import collect_versions
from rltoolkit.types import SamplingParams

RESULT = ROOT / "benchmarks" / "results" / "rlsp_emergence.json"
PLOT = ROOT / "recipes" / "rlsp" / "emergence.png"
QUICKSTART, DECOUPLED = "recipes/rlsp/quickstart.yaml", "recipes/rlsp/countdown-decoupled.yaml"
ARMS: dict[str, tuple[str, list[str]]] = {
    "none": (QUICKSTART, ["rewards.exploration=null"]),
    "length": (QUICKSTART, ["rewards.exploration={kind: length, target_tokens: 144}"]),
    "distinct": (QUICKSTART, []),
    "decoupled": (DECOUPLED, []),
}
EVERY = 64
ALLOWED = 8
TRIES = 6  # continuations asked for until one is an attempt and no box
MEASURES = ("accuracy", "sampled", "attempts", "distinct_attempts", "solved_after_backtracking")


def progress(text: str) -> None:
    """Say where the study is."""
    sys.stderr.write(f"{text}\n")


# ---- the start -------------------------------------------------------------------------------------------------


def accuracy_by_attempts(model: Path, seed: int, questions: int) -> list[float]:
    """Share of held-out problems that one of the first k sampled attempts hits, k = 1 ... ALLOWED.

    After a miss the model goes on from its own lines; where it would give up, another continuation is drawn.
    """
    tokenizer = load_tokenizer(str(model))
    backend = load_transformers_backend(model, tokenizer)
    ends = {token for token in range(len(tokenizer)) if tokenizer.decode([token]).endswith("\n")}
    rows = countdown_rows("test", questions)
    shown = {
        row: list(tokenizer(rows[row]["prompt"], add_special_tokens=False)["input_ids"]) for row in range(len(rows))
    }
    solved: list[float] = []
    found: set[int] = set()
    for k in range(ALLOWED):
        left = [row for row in shown if row not in found]
        for row, line in next_attempts(backend, {row: shown[row] for row in left}, ends, seed + 1000 * k).items():
            shown[row] += line
            if hits(tokenizer.decode(line), rows[row]["prompt"]):
                found.add(row)
        solved.append(len(found) / len(rows))
    return solved


def accuracy_by_chance(questions: int) -> list[float]:
    """The same share for k different attempts drawn at random from all that a problem's numbers allow; exact."""
    chances: list[list[float]] = []
    for row in countdown_rows("test", questions):
        (a, b, c), target = problem_of(row["prompt"])
        values = [attempt.value for attempt in attempts((a, b, c))]
        misses = sum(value != target for value in values)
        drawn = [min(k, len(values)) for k in range(1, ALLOWED + 1)]
        chances.append([1 - math.comb(misses, k) / math.comb(len(values), k) for k in drawn])
    return [statistics.fmean(column) for column in zip(*chances, strict=True)]


def next_attempts(backend: Any, shown: Mapping[int, list[int]], ends: set[int], seed: int) -> dict[int, list[int]]:
    """One more line for every row, up to a token of `ends`; none where all continuations were a box or no line."""
    lines: dict[int, list[int]] = {}
    for attempt in range(TRIES):
        rows = [row for row in shown if row not in lines]
        if not rows:
            break
        seeds = [request_seed(seed, attempt, shown[row], row) for row in rows]
        sampling = SamplingParams(temperature=1.0, max_new_tokens=24)
        for row, (sample,) in zip(
            rows, backend.generate([shown[row] for row in rows], 1, sampling, seeds), strict=True
        ):
            ids = list(sample.token_ids)
            length = next((place + 1 for place, token in enumerate(ids) if token in ends), None)
            if length is not None:
                lines[row] = ids[:length]
    return lines


# ---- what a response shows -------------------------------------------------------------------------------------


def problem_of(prompt: str) -> tuple[tuple[int, int, int], int]:
    """Numbers and target of a prompt such as 3,5,2>16."""
    numbers, _, target = prompt.strip().partition(">")
    a, b, c = (int(number) for number in numbers.split(","))
    return (a, b, c), int(target)


def hits(line: str, prompt: str) -> bool:
    """Whether an attempt reaches the target of the prompt; what is no attempt does not."""
    numbers, target = problem_of(prompt)
    values = {attempt.steps: attempt.value for attempt in attempts(numbers)}
    return values.get(line.partition("?")[0]) == target


def sample_facts(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Means over sampled responses: attempts, distinct attempts, solved after a first attempt that missed."""
    facts: dict[str, list[float]] = {"attempts": [], "distinct_attempts": [], "solved_after_backtracking": []}
    for row in rows:
        lines = [line for line in row["response"].split("\n") if "?" in line]
        facts["attempts"].append(len(lines))
        facts["distinct_attempts"].append(len({line.partition("?")[0] for line in lines}))
        backtracked = len(lines) > 1 and not hits(lines[0], row["prompt"])
        facts["solved_after_backtracking"].append(float(backtracked and row["outcome"] == "correct"))
    return {name: statistics.fmean(values) for name, values in facts.items()}


def curve(folder: Path) -> dict[str, list[float]]:
    """What a run measured on the held-out problems, by step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluations = {line["step"]: line for line in lines if line["phase"] == "evaluate"}
    points: dict[str, list[float]] = {"step": sorted(evaluations), **{name: [] for name in MEASURES}}
    last = points["step"][-1]
    for step in points["step"]:
        prefix = {0: "evaluate_before", last: "evaluate_after"}.get(step, f"step_{step:06d}")
        samples = (folder / "eval" / f"{prefix}.countdown.sampled.jsonl").read_text().splitlines()
        facts = sample_facts(json.loads(line) for line in samples)
        for name in MEASURES:
            points[name].append(facts[name] if name in facts else evaluations[step][name])
    return points


# ---- the study -------------------------------------------------------------------------------------------------


def run_arm(folder: Path, arm: str, seed: int, model: Path) -> dict[str, Any]:
    """Run PPO of one arm from a seed's stage-one model, unless that is done, and read its curve."""
    place, (recipe, changes) = folder / f"{arm}-{seed}", ARMS[arm]
    if not (place / "summary.json").exists():
        base = ["sft=null", f"model.name_or_path={model}", f"eval.every_steps={EVERY}"]
        start(place, seed, [*base, *changes], recipe=recipe)
    progress(f"{arm}, seed {seed}: done")
    return curve(place) | {"alarms": alarms(place)}


def alarms(folder: Path) -> int | None:
    """How often the run's hacking alarm went off; None where it had nothing to watch."""
    alarm = json.loads((folder / "summary.json").read_text()).get("hacking_alarm") or {}
    return len(alarm["events"]) if alarm.get("watched") else None


def summary(curves: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Mean over seeds and half the width of its 95 % t interval, by measure and step."""
    steps = range(len(curves[0]["step"]))
    return {name: [list(mean_and_interval([c[name][i] for c in curves])) for i in steps] for name in MEASURES}


def table(by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Rows of Markdown: the last evaluation, mean over seeds ± half the interval, and what an arm adds to none."""
    rows = [
        "| exploration | " + " | ".join(MEASURES) + " | sampled, paired against none |",
        "|---" * (len(MEASURES) + 2) + "|",
    ]
    for arm, curves in by_arm.items():
        cells = [_cell([c[name][-1] for c in curves]) for name in MEASURES]
        pairs = zip(curves, by_arm["none"], strict=True)
        cells.append("–" if arm == "none" else _cell([c["sampled"][-1] - n["sampled"][-1] for c, n in pairs], sign="+"))
        rows.append(f"| {arm} | " + " | ".join(cells) + " |")
    return rows


def _cell(values: Sequence[float], sign: str = "") -> str:
    mean, half = mean_and_interval(values)
    return f"{mean:{sign}.3f} ± {half:.3f}"


def plot(by_arm: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Accuracy, attempts and the share solved after backtracking against steps; a band is the 95 % t interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {
        "sampled": "held-out accuracy, temperature 1",
        "attempts": "attempts per response",
        "solved_after_backtracking": "solved after a first attempt that missed",
    }
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for arm, curves in by_arm.items():
            steps, points = curves[0]["step"], summary(curves)[name]
            (line,) = axes.plot(steps, [mean for mean, _ in points], label=arm, marker="o", markersize=3)
            low, high = ([mean + sign * half for mean, half in points] for sign in (-1, 1))
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        axes.set(title=title, xlabel="step")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
    figure.axes[0].legend(title="exploration")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Look at the start, run what is missing, write JSON and plot, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "rlsp-emergence")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.parallel) as executor:
        models = dict(
            zip(options.seeds, executor.map(lambda seed: stage_one(folder, seed), options.seeds), strict=True)
        )
        asked = [(arm, seed) for seed in options.seeds for arm in ARMS]
        curves = list(executor.map(lambda ask: run_arm(folder, ask[0], ask[1], models[ask[1]]), asked))
    by_arm = {arm: [c for c, (name, _) in zip(curves, asked, strict=True) if name == arm] for arm in ARMS}
    allowed = {str(seed): accuracy_by_attempts(model, seed, 500) for seed, model in models.items()}
    record = {
        "command": "python benchmarks/rlsp_emergence.py " + " ".join(sys.argv[1:]),
        "note": "a run that is finished is not repeated: those of an arm may be older than this file",
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "threads_per_run": 1},
        "versions": collect_versions(),
        "seeds": options.seeds,
        "start": {"accuracy_with_k_attempts_allowed": allowed, "the same by chance": accuracy_by_chance(500)},
        "arms": {arm: {"recipe": recipe, "overrides": changes} for arm, (recipe, changes) in ARMS.items()},
        "curves": by_arm,
        "summary": {arm: summary(curves) for arm, curves in by_arm.items()},
        "table": table(by_arm),
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    plot(by_arm, PLOT)
    print("\n".join(record["table"]))
    for seed, shares in allowed.items():
        print(f"start of seed {seed}, solved with 1, 2, ... attempts allowed: {' '.join(f'{s:.3f}' for s in shares)}")
    print(f"written: {RESULT}, {PLOT}")


if __name__ == "__main__":
    main()
