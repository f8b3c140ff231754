"""The tasks that are known by name. A module of this package makes one; it is loaded when asked for."""

import difflib
from importlib import import_module

from eval.tasks.base import Question, Task
from rltoolkit.errors import DataError

__all__ = ["TASKS", "Question", "Task", "load_task"]

TASKS = {"countdown": "eval.tasks.countdown", "gsm8k": "eval.tasks.gsm8k"}
"""Name -> module with `load(limit, seed) -> Task`."""


def load_task(name: str, *, limit: int | None = None, seed: int = 0) -> Task:
    """Load a task by name, with at most `limit` questions chosen by `seed`.

    Raises DataError for an unknown name, a limit below 1, and as the task's own `load` does.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(f"unknown task {name!r}; {hint}Known tasks: {', '.join(sorted(TASKS))}")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; ask for at least 1 question, or leave it out for all")
    task: Task = import_module(TASKS[name]).load(limit, seed)
    return task
