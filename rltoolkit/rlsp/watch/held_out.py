"""The hacking alarm of a run: it hears of every evaluation of the recipe's tasks, and tells log and metrics."""

import logging
from typing import Any

from rltoolkit.phases import Run
from rltoolkit.rlsp.watch.alarm import HackingAlarm, Mean
from rltoolkit.run.metrics import read_metrics

__all__ = ["ALARM_PHASE", "RunAlarm"]

ALARM_PHASE = "alarm"  # of the lines in metrics.jsonl

logger = logging.getLogger(__name__)


class RunAlarm:
    """A `HackingAlarm` with the held-out rates of a run: greedy and sampled accuracy of each task."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.alarm = HackingAlarm(run.folder.samples_dir.relative_to(run.folder.path))

    def hear(self, step: int, results: dict[str, dict[str, Any]]) -> None:
        """Take in the results of `evaluate_tasks`, on every process; an event goes into the log and the metrics."""
        event = self.alarm.judge(step, _rates(results))
        if event is None or not self._run.state.is_main_process:
            return
        text = event.text(self.alarm.samples_dir)
        logger.warning(text)
        told = {(record["phase"], record["step"]) for record in read_metrics(self._run.folder.metrics_path)}
        if (ALARM_PHASE, step) not in told:  # a run that died between this line and its end tells it again
            self._run.metrics.write(ALARM_PHASE, step, {"alarm/hacking": 1, "text": text})

    def hear_phase(self, phase: str, step: int) -> None:
        """Take in what an evaluation phase has measured, if it has."""
        if self._run.folder.is_done(phase):
            self.hear(step, self._run.folder.result(phase))

    def summary(self) -> dict[str, Any]:
        """For summary.json: whether there was anything to compare, how much was measured, and every event."""
        return {
            "watched": self.alarm.ringing is not None,
            "measurements": self.alarm.measurements,
            "events": self.alarm.texts(),
        }


def _rates(results: dict[str, dict[str, Any]]) -> dict[str, Mean | None]:
    return {
        f"{task} {key}": Mean.of_share(numbers["estimate"]["mean"], numbers["estimate"]["n"])
        for task, by_key in results.items()
        for key, numbers in by_key.items()
    }
