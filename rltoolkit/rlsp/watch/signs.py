"""Signs of exploration in a response's text: attempts, ways back, repetition. Counted, never paid for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from reward_models.exploration import attempt_lines
from reward_models.repetition import repeated_share
from rltoolkit.errors import DataError

__all__ = ["MISSES", "PHRASES", "Backtracking", "Signs"]

PHRASES = (
    "wait", "hold on", "alternatively", "on second thought",
    "let me check", "let me double check", "let me recheck", "let me verify", "let me reconsider", "let me rethink",
    "let me try", "let's try", "try again", "try another", "try a different", "another approach", "different approach",
    "that's not right", "that is not right", "that's wrong", "that is wrong", "that doesn't work",
    "that does not work", "i made a mistake", "i made an error", "start over", "go back", "going back", "backtrack",
)  # fmt: skip
"""What English reasoning says where it turns back, checks itself or tries another way."""

MISSES = ("no", "wrong", "incorrect", "fails", "✗", "✘", "❌")
"""What an attempt's line ends with where the response itself calls it a miss, as those of Countdown do."""


# Thai and Lao, Burmese, Khmer, kana, Chinese characters: words stand next to each other without a space.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


class Signs(NamedTuple):
    """What a response's text shows."""

    distinct_attempts: int
    """Different lines before the answer."""
    phrases: int
    """Phrases of turning back, in the whole response."""
    after_miss: int
    """Attempts that follow a line that says that it missed."""
    repetition: float
    """Share of the response that repeats what stands earlier in it."""

    @property
    def backtracked(self) -> bool:
        """Whether the response turned back at least once."""
        return self.phrases + self.after_miss > 0


@dataclass(frozen=True)
class Backtracking:
    """How turning back is recognised: phrases, and what the line of a missed attempt ends with.

    Both are whole words, whatever their case; white space, hyphens and the two apostrophes are each the same. The
    defaults are English: give those of your language. Where phrases overlap, the longest counts, once. Raises
    DataError for phrases that are no non-empty texts.
    """

    phrases: Sequence[str] = PHRASES
    misses: Sequence[str] = MISSES
    _phrase: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _miss: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check and compile."""
        object.__setattr__(self, "_phrase", re.compile(_any_of("phrases", self.phrases), re.IGNORECASE))
        at_end = _any_of("misses", self.misses) + r"[.!)\]]*$"
        object.__setattr__(self, "_miss", re.compile(at_end, re.IGNORECASE))

    def signs(self, text: str) -> Signs:
        """What one response shows."""
        lines = attempt_lines(text)
        after_miss = sum(bool(self._miss.search(line)) for line in lines[:-1])
        phrases = sum(1 for _ in self._phrase.finditer(text))
        return Signs(len(set(lines)), phrases, after_miss, repeated_share(text))


def _any_of(name: str, texts: Sequence[str]) -> str:
    """A pattern for any of the texts as whole words, the longest first; one that never matches for none."""
    if isinstance(texts, str) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"Backtracking: {name} is {texts!r}; give a list of texts that are not empty")
    stripped = sorted((text.strip() for text in texts), key=len, reverse=True)
    # The start of a word and the first letters are looked for once, not for each text: most places have neither.
    words = [text for text in stripped if _ends_word(text[0])]
    others = [text for text in stripped if not _ends_word(text[0])]
    initials = "".join(sorted({re.escape(text[0]) for text in words}))
    groups = [rf"(?<!\w)(?=[{initials}])(?:{'|'.join(map(_loosely, words))})"] if words else []
    return f"(?:{'|'.join(groups + [_loosely(text) for text in others])})" if stripped else r"(?!)"


def _loosely(text: str) -> str:
    """The text up to the end of its last word, however it is spaced and hyphenated."""
    words = [re.sub("['’]", "['’]", re.escape(word)) for word in re.split(r"[\s-]+", text)]
    return r"(?:\s+|-)".join(words) + (r"(?!\w)" if _ends_word(text[-1]) else "")


def _ends_word(character: str) -> bool:
    """Whether a letter next to this one would make another word of it: not beside signs, nor where none are spaced."""
    return (character.isalnum() or character == "_") and not _UNSPACED.match(character)
