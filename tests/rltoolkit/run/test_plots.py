"""A chart appears exactly when its numbers do; what is drawn is what was logged."""

import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from rltoolkit.run import plots
from rltoolkit.run.plots import CHARTS, accuracy_estimates, running_mean, write_plots

TRAIN = {
    "phase": "train",
    "reward/total": 0.5,
    "reward/outcome": 0.6,
    "reward/exploration": 0.1,
    "completions/mean_length": 40.0,
    "kl": 0.01,
    "entropy": 0.4,
    "policy/clip_fraction": 0.1,
    "value/clip_fraction": 0.2,
    "value/explained_variance": 0.3,
    "advantage/exploration_weight": 1.0,
}
EVALUATE = {
    "phase": "evaluate",
    "task": "countdown",
    "accuracy": 0.4,
    "accuracy_low": 0.35,
    "accuracy_high": 0.45,
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures by file name, as they were when they were saved."""
    figures: dict[str, Figure] = {}
    save = Figure.savefig

    def keep(self: Figure, path: Path, **options: object) -> None:
        figures[path.name.split(".")[1]] = self
        save(self, path, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_a_full_run_gives_every_plot_as_a_png(tmp_path: Path) -> None:
    records = [{**TRAIN, "step": step} for step in range(1, 100)]
    records += [{**EVALUATE, "step": step} for step in (0, 50, 100)]
    records += [{"phase": "sft", "step": 1, "loss": 2.0, "mean_token_accuracy": 0.1}]

    paths = write_plots(records, tmp_path / "plots")

    names = {"accuracy", *(chart.name for chart in CHARTS)}
    assert {path.stem for path in paths} == names == {path.stem for path in (tmp_path / "plots").iterdir()}
    assert len(names) == 9
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


@pytest.mark.parametrize("missing", [None, math.nan, "absent"])
def test_a_series_without_numbers_gives_no_plot(tmp_path: Path, missing: object) -> None:
    record = {**TRAIN, "step": 1, "kl": missing}
    if missing == "absent":
        del record["kl"]
    names = {path.stem for path in write_plots([record], tmp_path)}
    assert "entropy" in names
    assert "kl" not in names
    assert "accuracy" not in names
    assert "sft_loss" not in names


def test_no_metrics_give_no_plots(tmp_path: Path) -> None:
    assert write_plots([], tmp_path) == []


def test_the_loss_of_reinforcement_is_no_fine_tuning_loss(tmp_path: Path) -> None:
    assert write_plots([{"phase": "train", "step": 1, "loss": 0.1}], tmp_path) == []


def test_lines_have_the_logged_values_with_the_last_of_repeated_steps(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    records = [{**TRAIN, "step": step, "kl": kl} for step, kl in [(2, 0.2), (1, 0.1), (2, 0.25), (3, None)]]
    write_plots(records, tmp_path)

    (line,) = drawn["kl"].axes[0].lines
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata())[:2] == [0.1, 0.25]
    assert math.isnan(line.get_ydata()[2])
    labels = [text.get_text() for text in drawn["rewards"].axes[0].get_legend().get_texts()]
    assert labels == ["total", "outcome", "exploration"]


def test_a_very_low_explained_variance_is_raised_and_the_plot_says_so(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    write_plots([{**TRAIN, "step": s, "value/explained_variance": v} for s, v in [(1, -40.0), (2, 0.5)]], tmp_path)

    (axes,) = drawn["explained_variance"].axes
    assert list(axes.lines[0].get_ydata()) == [-1.0, 0.5]
    assert [text.get_text() for text in axes.texts] == ["values below -1 are drawn at -1"]


def test_a_long_curve_is_smoothed_and_the_plot_says_so(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    values = [float(step % 2) for step in range(100)]
    write_plots([{**TRAIN, "step": step, "kl": value} for step, value in enumerate(values)], tmp_path)

    (axes,) = drawn["kl"].axes
    thin, bold = axes.lines
    assert list(thin.get_ydata()) == values
    assert max(bold.get_ydata()[5:-5]) == pytest.approx(0.6)
    assert [text.get_text() for text in axes.texts] == ["bold: mean over 5 points"]


def test_accuracies_are_drawn_in_percent_with_their_intervals(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    write_plots([{**EVALUATE, "step": 10}], tmp_path)

    (axes,) = drawn["accuracy"].axes
    (bars,) = axes.containers
    ((bottom, top),) = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
    assert (bottom, top) == pytest.approx((35.0, 45.0))


def test_estimates_are_told_apart_by_task_only_when_there_are_several() -> None:
    sampled = {"phase": "evaluate", "task": "gsm8k", "step": 0, "sampled": 0.2}
    one = accuracy_estimates([{**EVALUATE, "step": 0}])
    two = accuracy_estimates([{**EVALUATE, "step": 0}, sampled, {**TRAIN, "step": 1, "accuracy": 0.9}])

    assert [estimate.label for estimate in one] == ["greedy"]
    assert [estimate.label for estimate in two] == ["countdown, greedy", "gsm8k, sampled"]
    assert (one[0].means, one[0].lows, one[0].highs) == ((0.4,), (0.35,), (0.45,))
    assert (two[1].lows, two[1].highs) == ((0.2,), (0.2,))  # no interval was logged: no bar


def test_running_mean_of_short_ends_and_gaps() -> None:
    nan = float("nan")
    assert running_mean([1.0, 2.0, 6.0], 3) == [1.5, 3.0, 4.0]
    assert running_mean([1.0, nan, 3.0], 3) == [1.0, 2.0, 3.0]
    assert math.isnan(running_mean([nan], 3)[0])


def test_pyplot_is_not_used() -> None:
    assert "pyplot" not in Path(plots.__file__).read_text()
