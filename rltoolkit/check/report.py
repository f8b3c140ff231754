"""What `rltoolkit check` found, part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Say = Callable[[str], None]


@dataclass
class CheckReport:
    """Collects problems and notes; each part is said as soon as it is known, since some take seconds."""

    say: Say
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def part(self, title: str, lines: Sequence[str]) -> None:
        """Say one part."""
        self.say("\n".join([title, *(f"  {line}" for line in lines), ""]))

    def problem(self, text: str) -> None:
        """Something that has to change before the recipe can run."""
        self.problems.append(text)

    def note(self, text: str) -> None:
        """Something that could not be verified here, or that is good to know."""
        self.notes.append(text)

    def close(self) -> int:
        """Say notes and problems; 0 if the recipe can run as far as is known, else 2."""
        if self.notes:
            self.part("Notes", self.notes)
        if self.problems:
            self.part(f"{len(self.problems)} problem(s)", [line for text in self.problems for line in text.split("\n")])
            return 2
        self.say("No problem found.")
        return 0
