"""What a run has in its hands between two steps, and what a checkpoint must hold to go on as if there were no break.

That is the rest of a rollout, where a checkpoint was written inside one (training was stopped there, or ended), and
the numbers that were counted but not logged yet. One file per process, since each has its own rows.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from rltoolkit.rlsp.trainer import RLSPTrainer

__all__ = ["InFlight"]

logger = logging.getLogger(__name__)


class InFlight:
    """Saves and restores what a trainer has begun."""

    def __init__(self) -> None:
        self._found: dict[str, Any] | None = None

    def save(self, trainer: "RLSPTrainer", folder: Path) -> None:
        """Write this process's part into a checkpoint folder."""
        step = _micro_step(trainer)
        inside = step % trainer.args.micro_steps_per_rollout != 0
        state = {
            **_settings(trainer),
            "rollout": trainer._buffered_inputs if inside else None,
            "loss": trainer._tr_loss.cpu(),
            "total_loss": trainer._total_loss_scalar,
            "last_logged": trainer._globalstep_last_logged,
            "metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
        }
        torch.save(state, _path(folder, trainer.accelerator.process_index))

    def load(self, trainer: "RLSPTrainer", folder: Path) -> None:
        """Read this process's part of a checkpoint, for `resume`; a checkpoint without one is at a boundary."""
        path = _path(folder, trainer.accelerator.process_index)
        found = torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
        here = _settings(trainer)
        other = [name for name in here if found is not None and found.get(name) != here[name]]
        if found is not None and other:
            logger.warning(
                "%s is of a run with %s, this one has %s; what was in flight is dropped, and the steps that follow are "
                "not those that would have followed there",
                folder,
                ", ".join(f"{name} {found.get(name)}" for name in other),
                ", ".join(f"{name} {here[name]}" for name in other),
            )
            found = None
        self._found = found

    def resume(self, trainer: "RLSPTrainer") -> None:
        """Give the trainer what `load` found, once its own state stands; a training from the start begins afresh."""
        found, self._found = self._found, None
        trainer._step = _micro_step(trainer)  # TRL counts from 0 in every process; rollouts begin where this divides
        trainer._buffered_inputs = None
        trainer._metrics["train"].clear()
        if found is None:
            return
        device = trainer.accelerator.device
        if found["rollout"] is not None:
            trainer._buffered_inputs = [_on(device, minibatch) for minibatch in found["rollout"]]
        trainer._tr_loss = found["loss"].to(device)
        trainer._total_loss_scalar = found["total_loss"]
        trainer._globalstep_last_logged = found["last_logged"]
        for name, values in found["metrics"].items():
            trainer._metrics["train"][name].extend(values)


def _settings(trainer: "RLSPTrainer") -> dict[str, int]:
    """What decides which rows of a rollout a step learns from; the rest of one is of use only where all are equal."""
    args = trainer.args
    return {
        "processes": trainer.accelerator.num_processes,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "steps_per_generation": args.steps_per_generation,
        "num_iterations": args.num_iterations,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
    }


def _micro_step(trainer: "RLSPTrainer") -> int:
    return int(trainer.state.global_step * trainer.args.gradient_accumulation_steps)


def _path(folder: Path, rank: int) -> Path:
    return folder / f"in_flight_{rank}.pt"


def _on(device: torch.device, minibatch: dict[str, Any]) -> dict[str, Any]:
    return {name: part.to(device) if isinstance(part, torch.Tensor) else part for name, part in minibatch.items()}
