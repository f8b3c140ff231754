"""The end of a run: its summary, plots and model card."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from rltoolkit.phases.evaluation import GREEDY, SAMPLED, number
from rltoolkit.phases.setting import Run
from rltoolkit.run.card import ALARM, write_card
from rltoolkit.run.metrics import read_metrics
from rltoolkit.run.plots import write_plots

__all__ = ["already_finished", "report"]


def already_finished(run: Run) -> bool:
    """Whether an earlier start of this recipe ended; its summary then stays as it is."""
    finished = run.folder.summary_path.exists()
    run.state.wait_for_everyone()
    if finished:
        run.say(f"finished before; see {run.folder.summary_path} and {run.folder.path / 'README.md'}")
    return finished


def report(run: Run, seconds: float, further: Mapping[str, Any] | None = None) -> None:
    """Write summary (with what the method adds), plots and model card, and say where they lie."""
    if not run.state.is_main_process:
        return
    summary = _summary(run, seconds) | dict(further or {})
    run.folder.write_summary(summary)
    write_plots(read_metrics(run.folder.metrics_path), run.folder.plots_dir)
    write_card(run.folder)
    for line in _closing_lines(run, summary):
        run.say(line)


def _summary(run: Run, seconds: float) -> dict[str, Any]:
    summary: dict[str, Any] = {"method": run.recipe.method, "seed": run.recipe.seed, "seconds": round(seconds, 1)}
    for phase in ("sft", "train"):
        if run.folder.is_done(phase):
            summary[f"{phase}_seconds"] = round(run.folder.result(phase)["seconds"], 1)
    by_task: dict[str, dict[str, Any]] = {task.name: {} for task in run.tasks}
    for when in ("before", "after"):
        if not run.folder.is_done(f"evaluate_{when}"):
            continue
        for task, results in run.folder.result(f"evaluate_{when}").items():
            for key, result in results.items():
                estimate = result["estimate"]
                by_task[task][f"{key}_{when}"] = estimate["mean"]
                by_task[task][f"{key}_{when}_interval"] = [estimate["low"], estimate["high"]]
                if result["mean_attempts"] is not None:
                    by_task[task][f"{key}_{when}_attempts"] = result["mean_attempts"]
    if by_task:
        first = next(iter(by_task))
        summary |= {"task": first, "questions": len(run.tasks[0].questions), **by_task[first]}
    if len(by_task) > 1:
        summary["tasks"] = by_task
    return summary


def _closing_lines(run: Run, summary: dict[str, Any]) -> Sequence[str]:
    lines = ["", f"[bold]Done[/bold] in {summary['seconds']:.0f} s. {run.folder.path}:"]
    for key, label in ((GREEDY, "greedy"), (SAMPLED, "sampled at temperature 1")):
        if f"{key}_before" in summary and f"{key}_after" in summary:
            before, after = (
                f"{number(summary[f'{key}_{when}'])} [{', '.join(map(number, summary[f'{key}_{when}_interval']))}]"
                for when in ("before", "after")
            )
            lines.append(f"  {label}: {before} -> {after}  ({summary['questions']} questions of {summary['task']})")
    lines.append(
        "  model/ (loads in transformers), README.md (model card), summary.json, plots/, samples/, metrics.jsonl"
    )
    lines += [f"[yellow]warning[/yellow] {escape(event)}" for event in summary.get(ALARM, {}).get("events", ())]
    return lines
