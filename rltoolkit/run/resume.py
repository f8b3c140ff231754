"""Resuming a Trainer of transformers so that it ends where it would have ended without the break."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rltoolkit.run.checkpoints import STATE_FILE

_INDEXED_CPU = re.compile(r"cpu:\d+")
_PLACE = 7301  # torch asks in this order, its own are below 100; two with the same number would be an error


def train_or_resume(trainer: Trainer, checkpoint: Path | None) -> None:
    """Train to the end, from `checkpoint` if there is one; a checkpoint written at the end is only loaded.

    The Trainer of transformers 5.17 would take one step too many from such a checkpoint, since it looks whether it
    is done only after a step. Call it on every process with the same checkpoint.
    """
    if checkpoint is None:
        trainer.train()
        return
    allow_indexed_cpu()
    if was_last(checkpoint):
        trainer.add_callback(_LoadOnly())
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    except _LoadedError:
        return


def was_last(checkpoint: Path) -> bool:
    """Whether training had ended, at its last step or early, when this complete checkpoint was written."""
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    control = state["stateful_callbacks"].get("TrainerControl", {}).get("args", {})
    return bool(state["global_step"] >= state["max_steps"] or control.get("should_training_stop"))


@functools.cache  # once per process is enough, and torch bears no more
def allow_indexed_cpu() -> None:
    """Let `torch.load` read a checkpoint onto "cpu:0"; call it before a Trainer resumes.

    With several processes on CPUs accelerate names the device "cpu:<rank>" and the Trainer of transformers 5.17 loads
    the optimizer onto that, which torch 2.13 does not know: resuming would fail. On other devices nothing changes.
    """

    def restore(storage: Any, location: str) -> Any:
        return storage if _INDEXED_CPU.fullmatch(location) else None

    torch.serialization.register_package(_PLACE, lambda _storage: None, restore)


class _LoadedError(Exception):
    """Raised to leave `Trainer.train` when it has loaded a checkpoint and not begun to train."""


class _LoadOnly(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    def on_train_begin(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        raise _LoadedError
