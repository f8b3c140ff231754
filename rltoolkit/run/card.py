"""The model card of a run: README.md in its folder, built from what the run wrote and from nothing else.

A number that the run did not write is not in the card; the card says that it is missing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rltoolkit.recipe.paths import is_embedded, looks_local
from rltoolkit.run.atomic import write_text
from rltoolkit.run.folder import RunFolder

METHODS = {
    "rlsp": "RLSP: PPO with a critic, rewarded for a correct outcome",
    "sft": "supervised fine-tuning on demonstrations; the loss counts the completions alone",
}
ACCURACIES = (("accuracy", "greedy"), ("sampled", "sampled at temperature 1"))
TIMES = ("before", "after")
ALARM = "hacking_alarm"  # of summary.json; told in words
PLOT_ORDER = (
    "accuracy",
    "rewards",
    "response_length",
    "kl",
    "entropy",
    "clip_fraction",
    "explained_variance",
    "sft_loss",
)
LOADING = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}/model")
tokenizer = AutoTokenizer.from_pretrained("{folder}/model")
```"""
LIMITS = (
    "The model was not examined for safety, bias or knowledge outside its tasks.",
    "Accuracies hold for the tasks and settings named here; other prompts and lengths were not measured.",
    "An interval covers the choice of questions, not the choice of the seed: this is one run.",
)


def write_card(folder: RunFolder) -> Path | None:
    """Write `README.md` into the run folder and return its path; only the main process does (else None)."""
    if not folder.is_main:
        return None
    path = folder.path / "README.md"
    write_text(path, render_card(folder))
    return path


def render_card(folder: RunFolder) -> str:
    """Return the card as Markdown, from recipe, manifest, summary.json, versions.json and plots."""
    recipe = yaml.safe_load(folder.recipe_path.read_text(encoding="utf-8"))
    summary = _read_json(folder.summary_path)
    sections = [
        _front_matter(recipe),
        f"# {folder.path.name}",
        _opening(recipe, folder),
        "## Results\n\n" + _results(summary),
        *_plots(folder.plots_dir),
        "## Data and rewards\n\n" + _data(recipe),
        "## Use\n\n" + _use(folder),
        "## Phases\n\n" + _phases(folder.manifest()),
        "## Versions\n\n" + _versions(_read_json(folder.versions_path) or {}, folder.manifest()),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        "## Recipe\n\nEvery default written out (`recipe.resolved.yaml`):\n\n"
        f"```yaml\n{folder.recipe_path.read_text(encoding='utf-8').strip()}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(recipe: Mapping[str, Any]) -> str:
    base = _get(recipe, "model", "name_or_path")
    fields: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if base and _is_hub_name(base):
        fields["base_model"] = base
    fields["tags"] = ["trl", "rltoolkit", str(recipe.get("method"))]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False).strip()}\n---"


def _opening(recipe: Mapping[str, Any], folder: RunFolder) -> str:
    method = str(recipe.get("method"))
    base = _get(recipe, "model", "name_or_path") or "a model that the recipe does not name"
    what = METHODS.get(method, method)
    if method == "rlsp" and _get(recipe, "rewards", "exploration"):
        what += " and, apart from it, for exploration"
    saved = "" if folder.model_dir.is_dir() else "\n\n**The run has no saved model yet.**"
    return f"`{base}` trained with {what}. Made with rltoolkit and TRL.{saved}"


def _results(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "The run has not written its summary (`summary.json`): no result is known."
    alarm = summary.get(ALARM)
    by_task = summary.get("tasks") or {summary.get("task"): summary}
    rows = [row for task, numbers in by_task.items() for row in _task_rows(task, numbers)]
    parts = []
    if rows:
        parts.append(
            "\n".join(["| task | measured, with 95 % interval | before | after |", "|---|---|---|---|", *rows])
        )
    unmeasured = [label for key, label in ACCURACIES if not any(_measured(n, key) for n in by_task.values())]
    if unmeasured:
        parts.append(f"Accuracy not measured: {', '.join(unmeasured)}.")
    others = [f"| {key} | {_shown(value)} |" for key, value in summary.items() if not _in_table(key)]
    if others:
        parts.append("\n".join(["| from `summary.json` | |", "|---|---|", *others]))
    return "\n\n".join(parts if alarm is None else [*parts, _alarm(alarm)])


def _alarm(alarm: Mapping[str, Any]) -> str:
    """What the hacking alarm of the run saw."""
    if not alarm["watched"]:
        return "Hacking alarm: nothing to compare (no exploration reward, or fewer than two held-out measurements)."
    if not alarm["events"]:
        return f"Hacking alarm: silent over {alarm['measurements']} held-out measurements."
    return "\n".join(["**The hacking alarm went off.**", "", *(f"- {event}" for event in alarm["events"])])


def _task_rows(task: str | None, numbers: Mapping[str, Any]) -> list[str]:
    rows = []
    for key, label in ACCURACIES:
        for suffix, what, show in (("", label, _accuracy), ("_attempts", f"attempts per response, {label}", _plain)):
            cells = [show(numbers, f"{key}_{when}{suffix}") for when in TIMES]
            if any(cells):
                before, after = (cell or "not measured" for cell in cells)
                rows.append(f"| {task or 'not named'} | {what} | {before} | {after} |")
    return rows


def _measured(numbers: Mapping[str, Any], key: str) -> bool:
    return any(numbers.get(f"{key}_{when}") is not None for when in TIMES)


def _accuracy(numbers: Mapping[str, Any], key: str) -> str | None:
    """Return "41.0 % (36.8 to 45.3)", or without the interval if the summary has none, or None."""
    mean = numbers.get(key)
    if mean is None:
        return None
    low, high = numbers.get(f"{key}_interval") or (None, None)
    interval = " (no interval)" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * mean:.1f} %{interval}"


def _plain(numbers: Mapping[str, Any], key: str) -> str | None:
    value = numbers.get(key)
    return None if value is None else f"{value:.2f}"


def _in_table(key: str) -> bool:
    accuracies = tuple(f"{accuracy}_{when}" for accuracy, _ in ACCURACIES for when in TIMES)
    return key in ("tasks", ALARM) or key.removesuffix("_interval").removesuffix("_attempts") in accuracies


def _plots(plots_dir: Path) -> list[str]:
    present = {path.stem: path for path in plots_dir.glob("*.png")}
    ordered = [name for name in PLOT_ORDER if name in present] + sorted(present.keys() - set(PLOT_ORDER))
    if not ordered:
        return []
    images = [f"![{name.replace('_', ' ')}](plots/{name}.png)" for name in ordered]
    return ["## Curves\n\n" + "\n".join(images)]


def _data(recipe: Mapping[str, Any]) -> str:
    lines = []
    for label, keys in (("training problems", ("data", "train")), ("demonstrations", ("sft", "data"))):
        path = _get(recipe, *keys, "path")
        if path:
            limit = _get(recipe, *keys, "limit")
            count = f", the first {limit} rows" if limit else ""
            lines.append(f"- {label}: `{path}`, split `{_get(recipe, *keys, 'split')}`{count}")
    for label, keys in (
        ("outcome reward", ("rewards", "outcome")),
        ("exploration", ("rewards", "exploration")),
    ):
        section = _get(recipe, *keys)
        if section:
            lines.append(f"- {label}: {_inline(section)}")
    tasks = _get(recipe, "eval", "tasks")
    if tasks:
        lines.append(f"- evaluated on: {', '.join(map(str, tasks))}")
    return "\n".join(lines) or "The recipe names none."


def _use(folder: RunFolder) -> str:
    if not folder.model_dir.is_dir():
        return "There is no `model/` in this folder yet."
    text = f"`model/` is an ordinary transformers folder:\n\n{LOADING.format(folder=folder.path.name)}"
    if (folder.model_dir / "adapter_config.json").exists():
        text += "\n\nIt holds an adapter, so `peft` must be installed; the base model is loaded with it."
    return text


def _phases(manifest: Mapping[str, Any]) -> str:
    phases, starts = manifest["phases"], manifest["starts"]
    lines = [f"- {name}: finished {phase['finished_at']}" for name, phase in phases.items()]
    if not lines:
        lines = ["- none has finished"]
    if len(starts) > 1:
        lines.append(f"- the run was started {len(starts)} times and continued from what it had")
    return "\n".join(lines)


def _versions(versions: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    if not versions:
        return "The run has no `versions.json`."
    rows = [f"| {name} | {version} |" for name, version in versions.get("packages", {}).items()]
    table = "\n".join(["| package | version |", "|---|---|", f"| python | {versions.get('python')} |", *rows])
    accelerators = versions.get("accelerators")
    machine = f"{versions.get('system')} {versions.get('machine')}, {versions.get('cpu_count')} CPU cores"
    if accelerators is not None:
        machine += f", {', '.join(accelerators) or 'no GPU'}"
    changes = [_changed(start) for start in manifest["starts"] if start["changed_versions"]]
    return "\n\n".join([table, f"Started on {machine}.", *changes])


def _changed(start: Mapping[str, Any]) -> str:
    changes = ", ".join(
        f"{name} {before or 'absent'} -> {now or 'absent'}" for name, (before, now) in start["changed_versions"].items()
    )
    return f"The start at {start['at']} ran on other versions: {changes}."


def _inline(section: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_shown(value)}" for key, value in section.items() if value is not None)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        return f"`{json.dumps(value)}`"
    return "not measured" if value is None else str(value)


def _get(section: Any, *keys: str) -> Any:
    for key in keys:
        section = section.get(key) if isinstance(section, Mapping) else None
    return section


def _is_hub_name(name: str) -> bool:
    return not (is_embedded(name) or looks_local(name) or Path(name).exists()) and name.count("/") <= 1


def _read_json(path: Path) -> dict[str, Any] | None:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
