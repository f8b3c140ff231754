"""The transformers callback that writes what a Trainer logs into the run's metrics file."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

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


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _number(value: Any) -> int | float:
    """Plain int or float: NumPy scalars are numbers, yet no JSON."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)
