"""The curves of a run as PNG files, drawn from its metrics.

Matplotlib is used without its global state, so that plots can be drawn from any thread, also without a
display.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltoolkit.run.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = Mapping[str, Any]

SIZE_INCHES = (6.4, 3.6)
DOTS_PER_INCH = 150  # 960 x 540 pixels: sharp at the width of a README
SMOOTH_FROM = 60  # points; a longer curve is drawn faint with its running mean on top
SMOOTH_OVER = 0.05  # of the points
LOWEST_EXPLAINED_VARIANCE = -1.0  # a fresh critic can start far below, which would flatten all that follows
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)  # told apart by colour-blind readers
INK, QUIET, GRID = "#222222", "#666666", "#E4E4E4"


@dataclass(frozen=True)
class Series:
    """One metric as a line: the key in `metrics.jsonl` and what the legend calls it."""

    key: str
    label: str


@dataclass(frozen=True)
class Chart:
    """One PNG: lines over optimiser steps."""

    name: str  # file name without .png
    title: str
    y_label: str
    series: tuple[Series, ...]
    belongs: Callable[[Record], bool]  # which lines of the metrics file count
    lowest: float | None = None  # values below are drawn here, and the plot says so


@dataclass(frozen=True)
class Estimates:
    """Measured accuracies with the ends of their intervals, by step."""

    label: str
    steps: tuple[int, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


def _is_sft(record: Record) -> bool:
    # TRL's SFTTrainer logs both together; the loss of another trainer does not belong into this plot
    return "mean_token_accuracy" in record and "loss" in record


def _is_train(record: Record) -> bool:
    return bool(record["phase"] == "train")


CHARTS = (
    Chart("sft_loss", "Fine-tuning loss", "nats per token", (Series("loss", "loss"),), _is_sft),
    Chart(
        "rewards",
        "Reward by component",
        "mean reward",
        (
            Series("reward/total", "total"),
            Series("reward/outcome", "outcome"),
            Series("reward/exploration", "exploration"),
        ),
        _is_train,
    ),
    Chart(
        "response_length",
        "Response length",
        "mean tokens",
        (Series("completions/mean_length", "length"),),
        _is_train,
    ),
    Chart("kl", "KL to the start model", "nats per token", (Series("kl", "KL"),), _is_train),
    Chart("entropy", "Policy entropy", "nats per token", (Series("entropy", "entropy"),), _is_train),
    Chart(
        "clip_fraction",
        "Clip fraction",
        "share of tokens",
        (Series("policy/clip_fraction", "policy"), Series("value/clip_fraction", "value")),
        _is_train,
    ),
    Chart(
        "explained_variance",
        "Critic: explained variance of returns",
        "share of variance",
        (Series("value/explained_variance", "explained variance"),),
        _is_train,
        lowest=LOWEST_EXPLAINED_VARIANCE,
    ),
    Chart(
        "exploration_weight",
        "Weight of the exploration stream",
        "weight, rates",
        (
            Series("advantage/exploration_weight", "weight"),
            Series("advantage/outcome_rate_smoothed", "smoothed outcome rate"),
            Series("advantage/outcome_floor", "its floor"),
        ),
        _is_train,
    ),
)


def write_plots(records: Sequence[Record], plots_dir: Path) -> list[Path]:
    """Draw every chart that `records` (lines of `metrics.jsonl`) has numbers for; return the files written.

    A step that was logged twice counts with its last line. Null values leave a gap in their curve.
    """
    plots_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    estimates = accuracy_estimates(records)
    if estimates:
        paths.append(_draw(plots_dir / "accuracy.png", lambda axes: _draw_accuracy(axes, estimates)))
    for chart in CHARTS:
        lines = _lines(chart, records)
        if lines:
            paths.append(_draw(plots_dir / f"{chart.name}.png", _chart_drawer(chart, lines)))
    return paths


def accuracy_estimates(records: Iterable[Record]) -> list[Estimates]:
    """Collect greedy and sampled accuracy for each task from lines of phase "evaluate"."""
    found: dict[tuple[str, str], dict[int, tuple[float, float, float]]] = {}
    for record in records:
        if record["phase"] != "evaluate":
            continue
        for key in ("accuracy", "sampled"):
            mean = record.get(key)
            if mean is not None:
                ends = (record.get(f"{key}_low"), record.get(f"{key}_high"))
                low, high = (mean if end is None else end for end in ends)
                by_step = found.setdefault((str(record.get("task", "")), key), {})
                by_step[record["step"]] = (mean, low, high)
    several_tasks = len({task for task, _ in found}) > 1
    return [_estimates(task, key, by_step, several_tasks) for (task, key), by_step in found.items()]


def _estimates(task: str, key: str, by_step: Mapping[int, tuple[float, float, float]], name_task: bool) -> Estimates:
    how = "greedy" if key == "accuracy" else "sampled"
    steps = tuple(sorted(by_step))
    means, lows, highs = zip(*(by_step[step] for step in steps), strict=True)
    return Estimates(f"{task}, {how}" if name_task else how, steps, means, lows, highs)


def _lines(chart: Chart, records: Iterable[Record]) -> list[tuple[Series, list[int], list[float]]]:
    """Return steps and values of each series that has at least one number."""
    own = [record for record in records if chart.belongs(record)]
    lines = []
    for series in chart.series:
        by_step = {record["step"]: record[series.key] for record in own if series.key in record}
        steps = sorted(by_step)
        values = [float("nan") if by_step[step] is None else float(by_step[step]) for step in steps]
        if any(value == value for value in values):
            lines.append((series, steps, values))
    return lines


def _chart_drawer(chart: Chart, lines: Sequence[tuple[Series, list[int], list[float]]]) -> Callable[["Axes"], None]:
    def draw(axes: "Axes") -> None:
        for (series, steps, values), colour in zip(lines, COLOURS, strict=False):
            _draw_line(axes, steps, _raised(values, chart.lowest), series.label, colour)
        _describe(axes, chart.title, chart.y_label)
        if len(lines) > 1:
            _legend(axes)
        _note(axes, _remarks(chart, [values for _, _, values in lines]))

    return draw


def _draw_line(axes: "Axes", steps: Sequence[int], values: Sequence[float], label: str, colour: str) -> None:
    if len(values) < SMOOTH_FROM:
        marker = "o" if len(values) <= 20 else None
        axes.plot(steps, values, color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)
        return
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
    smooth = running_mean(values, _window(len(values)))
    axes.plot(steps, smooth, color=colour, linewidth=2.0, label=label)


def _remarks(chart: Chart, curves: Sequence[Sequence[float]]) -> list[str]:
    """Return what a reader must know about the drawing: smoothing, and values that were moved."""
    longest = max(len(values) for values in curves)
    remarks = [f"bold: mean over {_window(longest)} points"] if longest >= SMOOTH_FROM else []
    if chart.lowest is not None and any(value < chart.lowest for values in curves for value in values):
        remarks.append(f"values below {chart.lowest:g} are drawn at {chart.lowest:g}")
    return remarks


def _window(points: int) -> int:
    return max(3, round(points * SMOOTH_OVER)) | 1  # odd, so that it is centred


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of up to `window` values around each one; NaN does not count, NaN alone gives NaN."""
    half = window // 2
    means = []
    for index in range(len(values)):
        near = [value for value in values[max(0, index - half) : index + half + 1] if value == value]
        means.append(sum(near) / len(near) if near else float("nan"))
    return means


def _raised(values: Sequence[float], lowest: float | None) -> list[float]:
    return [max(value, lowest) if lowest is not None and value == value else value for value in values]


def _draw_accuracy(axes: "Axes", estimates: Sequence[Estimates]) -> None:
    last = max(step for estimate in estimates for step in estimate.steps)
    shift = last * 0.006  # bars of the same step side by side
    for index, (estimate, colour) in enumerate(zip(estimates, COLOURS * len(estimates), strict=False)):
        place = (index - (len(estimates) - 1) / 2) * shift
        below = [mean - low for mean, low in zip(estimate.means, estimate.lows, strict=True)]
        above = [high - mean for mean, high in zip(estimate.means, estimate.highs, strict=True)]
        axes.errorbar(
            [step + place for step in estimate.steps],
            [100 * mean for mean in estimate.means],
            yerr=[[100 * length for length in below], [100 * length for length in above]],
            color=colour,
            linewidth=1.8,
            elinewidth=1.2,
            capsize=3,
            marker="o",
            markersize=5,
            label=estimate.label,
        )
    _describe(axes, "Held-out accuracy", "correct, %")
    _legend(axes)
    _note(axes, ["bars: 95 % intervals"])
    if last == 0:
        axes.set_xlim(-1, 1)  # the default range around a single step would be made of fractions


def _describe(axes: "Axes", title: str, y_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=10)
    axes.set_xlabel("optimiser step", color=QUIET, loc="left")
    axes.set_ylabel(y_label, color=QUIET)
    axes.margins(x=0.02, y=0.1)


def _legend(axes: "Axes") -> None:
    """Beside the title while there is room, else within the plot."""
    style = {"frameon": False, "fontsize": 9, "labelcolor": INK}
    if len(axes.get_legend_handles_labels()[1]) <= 3:
        axes.legend(**style, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    else:
        axes.legend(**style, ncols=2, loc="best")


def _note(axes: "Axes", remarks: Sequence[str]) -> None:
    """Write the remarks in the row of the x label, at its right end, where no curve can run."""
    axes.annotate(
        "; ".join(remarks),
        (1, 0),
        xycoords="axes fraction",
        xytext=(0, -22),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
        color=QUIET,
    )


def _draw(path: Path, draw: Callable[["Axes"], None]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#BBBBBB")
    axes.tick_params(colors=QUIET, labelsize=9, length=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    draw(axes)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
