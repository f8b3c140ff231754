"""The transformers callback that writes what a Trainer logs into the run's metrics file."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rltoolkit.run.metrics import MetricsWriter


class MetricsCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Writes each log of a Trainer as one line of `metrics.jsonl` under the name of its phase.

    When training begins, lines beyond the step it begins at are removed: a run that died after its last
    checkpoint logs those steps once more, and the file ends as if it had never died. `also_rewind` names
    further phases whose lines count in this Trainer's steps, such as evaluations made during training.
    """

    def __init__(self, writer: MetricsWriter, phase: str, *, also_rewind: Sequence[str] = ()) -> None:
        self.writer = writer
        self.phase = phase
        self.rewound = (phase, *also_rewind)

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        """Forget the steps that will be logged again."""
        if state.is_world_process_zero:
            self.writer.drop_after(state.global_step, self.rewound)

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_kwargs: Any,
    ) -> None:
        """Write the numbers of one log; what is no number is left out."""
        if state.is_world_process_zero and logs:
            values = {key: _number(value) for key, value in logs.items() if _is_number(value)}
            self.writer.write(self.phase, state.global_step, values)


class ProgressLine(ProgressCallback):  # type: ignore[misc]  # transformers is untyped here
    """The Trainer's progress bar with a few of the numbers on it, in place of all of them printed at every log."""

    def __init__(self, phase: str, shown: Sequence[str]) -> None:
        super().__init__()
        self.phase = phase
        self.shown = tuple(shown)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(self.phase)

    def on_log(
        self,
        _args: TrainingArguments,
        _state: TrainerState,
        _control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_kwargs: Any,
    ) -> None:
        """Show the newest numbers behind the bar; a key's last part is its label."""
        if self.training_bar is None or not logs:
            return
        found = {key.rpartition("/")[2]: logs[key] for key in self.shown if _is_number(logs.get(key))}
        if found:
            self.training_bar.set_postfix({label: f"{float(value):.3g}" for label, value in found.items()})


def show_progress(trainer: Trainer, phase: str, shown: Sequence[str]) -> None:
    """Put a `ProgressLine` in the place of the Trainer's own bar; with `disable_tqdm` nothing is shown."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(ProgressLine(phase, shown))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _number(value: Any) -> int | float:
    """Plain int or float: NumPy scalars are numbers, yet no JSON."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)
