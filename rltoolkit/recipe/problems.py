"""What can be wrong with a recipe, and how it is said: key, place, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rltoolkit.errors import RLToolkitError

COMMAND_LINE = "command line"

# Below this similarity a suggestion confuses more than it helps.
_NEAR_ENOUGH = 0.6


@dataclass(frozen=True)
class RecipeProblem:
    """One mistake.

    `where` is "recipes/x.yaml line 12" or "command line"; `found` says what stands there; `expected` what is
    allowed (may be empty where `remedy` says it all); `remedy` is what to do.
    """

    where: str
    key: str
    found: str
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        place = "on the command line" if self.where == COMMAND_LINE else f"in {self.where}"
        subject = f"{self.key} {place}" if self.key else self.where
        middle = f"{self.found}, expected {self.expected}" if self.expected else self.found
        joint = ": " if not self.found.startswith("is ") else " "
        return f"{subject}{joint}{middle}" + (f"; {self.remedy}" if self.remedy else "")


class RecipeError(RLToolkitError, ValueError):
    """A recipe cannot be run; `problems` holds every mistake found, not only the first."""

    def __init__(self, problems: Sequence[RecipeProblem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        return f"{len(self.problems)} mistakes in the recipe:\n{lines}"


def nearest_key(wrong: str, known: Iterable[str]) -> str | None:
    """The known dotted key that `wrong` most likely meant, or None.

    A key is compared as a whole and by its last part, so that a right name in the wrong section is found too
    (`train.temperature` -> `rollout.temperature`). The same section wins a tie.
    """
    last = wrong.rpartition(".")[2]
    section = wrong.rpartition(".")[0]

    def score(candidate: str) -> tuple[float, bool]:
        by_name = difflib.SequenceMatcher(None, last, candidate.rpartition(".")[2], autojunk=False).ratio()
        by_whole = difflib.SequenceMatcher(None, wrong, candidate, autojunk=False).ratio()
        return max(by_name, 0.9 * by_whole), candidate.rpartition(".")[0] == section

    best = max(known, key=score, default=None)
    return best if best is not None and score(best)[0] >= _NEAR_ENOUGH else None


def did_you_mean(wrong: str, known: Iterable[str], otherwise: str) -> str:
    """The remedy for an unknown name: the nearest known one, or `otherwise`."""
    near = nearest_key(wrong, known)
    return suggestion(near) if near is not None else otherwise


def suggestion(key: str) -> str:
    """How a near key is suggested."""
    return f"did you mean {key}?"


class RefusedError(ValueError):
    """Raised by a field's own check; carries the three parts that a `RecipeProblem` needs."""

    def __init__(self, found: str, *, expected: str = "", remedy: str = "") -> None:
        super().__init__(found)
        self.found, self.expected, self.remedy = found, expected, remedy
