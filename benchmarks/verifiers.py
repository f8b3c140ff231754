"""MathVerifier on labelled real answers: agreement, throughput and poison, beside math-verify and TRL in the same run.

    python benchmarks/verifiers.py [--data DIR] [--repetitions 5] [--out benchmarks/results/verifiers.json]

The data are the rows of `verifier_answers/answers_public.jsonl` below `--data` (default: RLTOOLKIT_DATA, else
../shared/data). Three parts: equality alone (`\\boxed{final_answer}` against the reference), completions with a box,
and whole completions under each extraction policy. References are given bare to ours, to math-verify bare and in a
box; rows whose reference is damaged by our rule, which looks at the reference alone, are left out for everyone.

For the throughput, sides take turns; each repetition of ours has a fresh pool, so that no reference is known from
the one before, and its start is not counted. TRL's `accuracy_reward` runs in one process, as in its trainers.
"""

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from reward_models import MathVerifier, Verdict, VerifierPool
from reward_models.math_answers import reference_problem
from rltoolkit.run.versions import collect_versions

ROOT = Path(__file__).parents[1]
BOXED_FORMATS = {"boxed", "several boxes", "boxed (several, some with leading zeros)"}
# math-verify has one way to read whole completions, which stands beside our most lenient.
BESIDE_MATH_VERIFY = {"equality", "boxed completions", "all completions, lenient"}
WORKERS = 2
TIMEOUT_S = 10.0
POISON_TIMEOUT_S = 3.0
# Ten of the corpus of the tests: the kinds of harm that graders are known for.
POISONS = (
    "tower in a fraction",
    "factorial of a factorial",
    "power of a sum",
    "catastrophic for a regex",
    "a million letters",
    "a million digits",
    "nested brackets",
    "more digits than print",
    "import and exit",
    "radicals",
)

Row = dict[str, Any]


class Part(NamedTuple):
    """A part of the measurement: which rows, what stands for the response, and our policy for it."""

    name: str
    policy: str
    rows: list[Row]
    responses: list[str]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RLTOOLKIT_DATA", ROOT.parent / "shared" / "data"))
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "verifiers.json")
    options = parser.parse_args()
    rows = read_rows(options.data / "verifier_answers" / "answers_public.jsonl")
    sound = [row for row in rows if reference_problem(row["gold"]) is None]
    parts = make_parts(sound)
    verdicts = {part.name: judge(part) for part in parts}
    record = {
        "rows": len(rows),
        "left_out": len(rows) - len(sound),
        "agreement": agreement(parts, verdicts),
        "throughput": throughput(rows, options.repetitions),
        "poison": poison(sound),
        "disagreements": disagreements(parts, verdicts),
        "command": f"python benchmarks/verifiers.py --repetitions {options.repetitions}",
        "versions": collect_versions(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    show(record)
    print(f"written to {options.out}")


def read_rows(path: Path) -> list[Row]:
    """Read the labelled answers."""
    if not path.is_file():
        raise SystemExit(f"no {path}; give --data, the folder that holds verifier_answers/answers_public.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_parts(rows: list[Row]) -> list[Part]:
    """Return the parts: equality alone, boxed completions, whole completions under the other policies."""
    answered = [row for row in rows if row["final_answer"] is not None]
    boxed = [row for row in rows if row["answer_format"] in BOXED_FORMATS]
    return [
        Part("equality", "boxed", answered, [f"\\boxed{{{row['final_answer']}}}" for row in answered]),
        Part("boxed completions", "boxed", boxed, [row["completion"] for row in boxed]),
        *(
            Part(f"all completions, {policy}", policy, rows, [row["completion"] for row in rows])
            for policy in ("boxed", "marked", "lenient")
        ),
    ]


def judge(part: Part) -> list[Verdict]:
    """Our verdicts on a part."""
    with VerifierPool(MathVerifier(extraction=part.policy), workers=WORKERS, timeout_s=TIMEOUT_S) as pool:
        return pool.check_many(part.responses, [row["gold"] for row in part.rows])


def agreement(parts: Sequence[Part], verdicts: dict[str, list[Verdict]]) -> list[dict[str, Any]]:
    """Agreement with the labels by part, grader and confidence of the label."""
    table = []
    for part in parts:
        graders = {"ours": [verdict.score == 1.0 for verdict in verdicts[part.name]]}
        if part.name in BESIDE_MATH_VERIFY:
            graders |= math_verify(part)
        for grader, answers in graders.items():
            for confidence in ("high", "all"):
                table.append({"part": part.name, "grader": grader, "confidence": confidence})
                table[-1] |= confusion(part.rows, answers, confidence)
    return table


def confusion(rows: Sequence[Row], answers: Sequence[bool], confidence: str) -> dict[str, Any]:
    """Count agreement, false positives and false negatives on the rows whose label is so sure."""
    counts = Counter(
        (answer, row["label"])
        for row, answer in zip(rows, answers, strict=True)
        if confidence in ("all", row["label_confidence"])
    )
    agree = counts[True, True] + counts[False, False]
    return {
        "rows": counts.total(),
        "agree_percent": round(100 * agree / counts.total(), 2),
        "false_positives": counts[True, False],
        "false_negatives": counts[False, True],
    }


def math_verify(part: Part) -> dict[str, list[bool]]:
    """What math-verify says with its default settings, the reference bare and in a box."""
    from math_verify import parse, verify

    predictions = [parse(response) for response in part.responses]
    return {
        f"math-verify, reference {name}": [
            bool(verify(parse(template.replace("GOLD", row["gold"])), prediction))
            for row, prediction in zip(part.rows, predictions, strict=True)
        ]
        for name, template in (("bare", "GOLD"), ("boxed", "\\boxed{GOLD}"))
    }


def disagreements(parts: Sequence[Part], verdicts: dict[str, list[Verdict]]) -> list[dict[str, Any]]:
    """Every row on which we and the label differ, by part; boxed readers know no other answers than boxed ones."""
    return [
        {
            "part": part.name,
            "id": row["id"],
            "confidence": row["label_confidence"],
            "label": row["label"],
            "gold": row["gold"],
            "final_answer": row["final_answer"],
            "outcome": str(verdict.outcome),
            "extracted": verdict.extracted,
            "detail": verdict.detail,
        }
        for part in parts
        if part.name != "all completions, boxed"
        for row, verdict in zip(part.rows, verdicts[part.name], strict=True)
        if (verdict.score == 1.0) != row["label"]
    ]


def throughput(rows: Sequence[Row], repetitions: int) -> dict[str, Any]:
    """Verdicts per second on all rows, as medians with their extremes; sides take turns."""
    completions, golds = [row["completion"] for row in rows], [row["gold"] for row in rows]
    sides: dict[str, Callable[[], float]] = {
        "ours, boxed, 2 workers": lambda: seconds_of_pool("boxed", 2, completions, golds),
        "ours, lenient, 2 workers": lambda: seconds_of_pool("lenient", 2, completions, golds),
        "ours, boxed, 1 worker": lambda: seconds_of_pool("boxed", 1, completions, golds),
        "TRL accuracy_reward, reference bare": lambda: seconds_of_trl(completions, golds),
        "TRL accuracy_reward, reference boxed": lambda: seconds_of_trl(completions, [f"\\boxed{{{g}}}" for g in golds]),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for repetition in range(repetitions + 1):
        for name, side in sides.items():
            speed = len(rows) / side()
            if repetition:  # the first is for warming up
                speeds[name].append(speed)
    return {"repetitions": repetitions, "verdicts_per_second": {name: spread(found) for name, found in speeds.items()}}


def seconds_of_pool(policy: str, workers: int, completions: list[str], golds: list[str]) -> float:
    """Wall time of one call to a fresh pool."""
    with VerifierPool(MathVerifier(extraction=policy), workers=workers, timeout_s=TIMEOUT_S) as pool:
        start = time.perf_counter()
        pool.check_many(completions, golds)
        return time.perf_counter() - start


def seconds_of_trl(completions: list[str], golds: list[str]) -> float:
    """Wall time of one call of TRL's reward function, with completions in the form that its trainers give."""
    from trl.rewards import accuracy_reward

    messages = [[{"role": "assistant", "content": completion}] for completion in completions]
    start = time.perf_counter()
    accuracy_reward(messages, golds)
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, int]:
    """The median and the extremes."""
    return {"median": round(statistics.median(values)), "min": round(min(values)), "max": round(max(values))}


def poison(rows: Sequence[Row]) -> dict[str, Any]:
    """1,000 answers, ten of them poisoned: time, mistakes and what is left behind."""
    honest = [row for row in rows if row["final_answer"] is not None][:990]
    cases = [(f"\\boxed{{{row['final_answer']}}}", row["gold"]) for row in honest]
    clean = [verdict.outcome for verdict in judge(Part("", "boxed", honest, [response for response, _ in cases]))]
    corpus = {poison.name: poison for poison in load_poisons()}
    places = [(2 * index + 1) * 50 for index in range(len(POISONS))]
    for place, name in zip(places, POISONS, strict=True):
        cases.insert(place, (corpus[name].response, corpus[name].reference))
    this = psutil.Process()
    children = {child.pid for child in this.children(recursive=True)}
    before = this.memory_info().rss
    with VerifierPool(MathVerifier(), workers=WORKERS, timeout_s=POISON_TIMEOUT_S) as pool:
        start = time.perf_counter()
        verdicts = pool.check_many([response for response, _ in cases], [reference for _, reference in cases])
        seconds = time.perf_counter() - start
    outcomes = [verdict.outcome for verdict in verdicts]
    poisoned = {POISONS[places.index(place)]: str(outcomes[place]) for place in places}
    honest_outcomes = [outcome for place, outcome in enumerate(outcomes) if place not in places]
    return {
        "answers": len(cases),
        "timeout_s": POISON_TIMEOUT_S,
        "workers": WORKERS,
        "seconds": round(seconds, 1),
        "honest_verdicts_changed": sum(a != b for a, b in zip(clean, honest_outcomes, strict=True)),
        "poisoned": poisoned,
        "poisoned_misjudged": sum(outcome not in corpus[name].outcomes for name, outcome in poisoned.items()),
        "processes_left": len({child.pid for child in this.children(recursive=True)} - children),
        "memory_grown_mib": round((this.memory_info().rss - before) / 2**20, 1),
    }


def load_poisons() -> Sequence[Any]:
    """The corpus of the tests, which imports nothing."""
    spec = importlib.util.spec_from_file_location("poisons", ROOT / "tests" / "reward_models" / "poisons.py")
    if spec is None or spec.loader is None:
        raise SystemExit("tests/reward_models/poisons.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.POISONS


def show(record: dict[str, Any]) -> None:
    """Print what was measured."""
    print(f"{record['rows']} rows, {record['left_out']} with a damaged reference left out\n")
    print(f"{'part':28} {'grader':32} {'labels':6} {'rows':>5} {'agree %':>8} {'FP':>4} {'FN':>4}")
    for line in record["agreement"]:
        print(
            f"{line['part']:28} {line['grader']:32} {line['confidence']:6} {line['rows']:5} "
            f"{line['agree_percent']:8.2f} {line['false_positives']:4} {line['false_negatives']:4}"
        )
    print("\nverdicts per second: median (least to most)")
    for name, speed in record["throughput"]["verdicts_per_second"].items():
        print(f"{name:38} {speed['median']:6} ({speed['min']} to {speed['max']})")
    print(f"\npoison: {json.dumps({key: value for key, value in record['poison'].items() if key != 'poisoned'})}")
    print(f"{len(record['disagreements'])} disagreements over all parts")


if __name__ == "__main__":
    main()
