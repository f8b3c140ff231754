"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): grade-school word problems with an integer answer."""

import json
import os
import random
from pathlib import Path
from typing import Any

from eval.tasks.base import Question, Task
from reward_models.math_answers import MathVerifier
from rltoolkit.errors import DataError
from rltoolkit.types import SamplingParams

__all__ = ["load", "load_file"]

DATA_VARIABLE = "RLTOOLKIT_DATA"
"""Environment variable with the folder that holds gsm8k/test.jsonl."""

DEFAULT_FOLDER = "../shared/data"
"""Where it is looked for when the variable is not set."""

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The instruction of the Qwen2.5-Math evaluations, here after the question; the verifier needs the box."""

ANSWER_MARK = "####"


def load(limit: int | None = None, seed: int = 0) -> Task:
    """Load the test split from the data folder; see `load_file`. Raises DataError if there is none."""
    folder = os.environ.get(DATA_VARIABLE, DEFAULT_FOLDER)
    if not Path(folder).is_dir():
        raise DataError(
            f"task gsm8k needs its data: the folder {folder} does not exist; set the environment variable "
            f"{DATA_VARIABLE} to a folder with gsm8k/test.jsonl (rows with question and answer), or use "
            "eval.tasks.gsm8k.load_file(path)"
        )
    return load_file(Path(folder) / "gsm8k" / "test.jsonl", limit=limit, seed=seed)


def load_file(path: Path, *, limit: int | None = None, seed: int = 0) -> Task:
    """Load a JSONL file with `question` and `answer`, the reference being what follows '####' in the answer.

    With a limit, that many rows drawn with `seed`, in the file's order. Raises DataError for a missing
    file and for a row that cannot be read, naming its line.
    """
    if not path.is_file():
        raise DataError(f"task gsm8k: {path} does not exist; give a JSONL file with question and answer")
    lines = [(i, line) for i, line in enumerate(path.read_text("utf-8").splitlines(), 1) if line.strip()]
    if limit is not None and limit < len(lines):
        lines = sorted(random.Random(seed).sample(lines, limit))
    return Task(
        name="gsm8k",
        questions=tuple(_question(line, i, path) for i, line in lines),
        verifier=MathVerifier(),
        prompt_format="chat",
        sampling=SamplingParams(max_new_tokens=1024),
    )


def _question(line: str, number: int, path: Path) -> Question:
    place = f"task gsm8k: {path} line {number}"
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON ({error.msg}); give one JSON object a line") from error
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("question", "answer")):
        found = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise DataError(f"{place}: found {found}; give an object with the texts question and answer")
    _, mark, answer = row["answer"].rpartition(ANSWER_MARK)
    reference = answer.strip().replace(",", "")
    if not mark or not reference:
        raise DataError(f"{place}: the answer has nothing after {ANSWER_MARK!r}; end it with '#### 42'")
    return Question(f"line-{number}", f"{row['question'].strip()}\n{INSTRUCTION}", reference)
