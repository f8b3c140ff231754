"""Answers of a judge on disk: one small file per question, safe for several processes.

Only the answer's text and its tokens are kept, under a hash of everything that the answer depends on; no question, no
key. A file that cannot be read counts as absent and is written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_models.errors import VerifierError
from reward_models.judge.completion import token_count

FORMAT = 1


@dataclass(frozen=True)
class KeptAnswer:
    """What the model answered, and what that took."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


def content_key(parts: dict[str, Any]) -> str:
    """A hash of everything an answer depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """A folder of answers.

    Raises:
        VerifierError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise VerifierError(
                f"judge.cache_dir is {str(self.folder)!r}, which cannot be written to ({error}); "
                "give a folder that can, or leave it out"
            ) from error

    def get(self, key: str) -> KeptAnswer | None:
        """The answer kept under a key, None if there is none that can be read."""
        try:
            entry = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(entry, dict) or entry.get("format") != FORMAT or entry.get("key") != key:
            return None
        text = entry.get("text")
        if not isinstance(text, str):
            return None
        return KeptAnswer(text, token_count(entry.get("prompt_tokens")), token_count(entry.get("completion_tokens")))

    def put(self, key: str, answer: KeptAnswer) -> None:
        """Keep an answer; a reader sees all of it or nothing. Raises OSError, such as for a full disk."""
        entry = {
            "format": FORMAT,
            "key": key,
            "text": answer.text,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
        }
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entry, file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"  # folders of their own: a million files in one are slow to list
