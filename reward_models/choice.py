"""Multiple choice: which option an answer names."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from reward_models.answers.extraction import Extracted, extract
from reward_models.errors import VerifierError
from reward_models.stated_answer import AnswerPlace, AnswerReader, shown, unreadable
from reward_models.verdict import Verdict

# An option with its text fits; a longer answer is an essay, in which letters mean nothing.
MAX_CHOICE_CHARS = 2000
_MAX_WRAPPINGS = 4

_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt)|mbox|boxed|operatorname)\s*\{([^{}]*)\}")
_LOOKS = re.compile(r"\\(?:left|right|quad|qquad)(?![A-Za-z])|\\[ ,;:!()\[\]]|[$*~_`]")
_SEPARATORS = re.compile(r"[\s,;/&|+]+(?:(?:and|or)[\s,;]+)?")
_BRACKETS = "()[]{}.: "
_WORD = re.compile(r"\b(?i:option|choice|answer)\b[\s:]*(?:(?i:is)\b[\s:]*)?")


class _Patterns(NamedTuple):
    """`first` is a label at the beginning, `marked` one anywhere, with the marks that make a letter a label."""

    first: re.Pattern[str]
    marked: re.Pattern[str]


class ChoiceVerifier:
    r"""Compares the option that the answer names with the one of the reference.

    Read are `C`, `(C)`, `C.`, `C) 42`, `C: 42`, `\text{C}`, `\textbf{(C)}\ 42`, `option C` and "the answer is C", small
    letters too. An answer that names several different options is wrong, whichever they are; so is one that names
    none, such as the text of an option without its letter.

    With `extraction="lenient"` a response without a stated answer is read by its last line.

    Args:
        labels: the letters or digits of the options.
        extraction: where the answer stands (see `reward_models.answers.extraction`); "whole" is all of the text.
        thinking_end: only the text behind the last one counts; None if the model does not mark it.

    Raises:
        VerifierError: an option has a value that does not exist.
    """

    def __init__(
        self,
        *,
        labels: str = "ABCDEFGHIJ",
        extraction: AnswerPlace = "boxed",
        thinking_end: str | None = "</think>",
    ) -> None:
        self.labels = _checked_labels(labels)
        self._reader = AnswerReader("ChoiceVerifier", extraction, thinking_end)

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response; never raises on text."""
        gold = named_options(reference, self.labels)
        if len(gold) != 1:
            return unreadable(reference, f"one option of {self.labels}, such as {self.labels[0]} or ({self.labels[0]})")
        found = self._read(response)
        if found is None:
            return self._reader.missing()
        named = named_options(found.text, self.labels)
        if len(named) != 1:
            complaint = f"names several options: {', '.join(named)}" if named else f"names no option of {self.labels}"
            return Verdict.wrong(shown(found.text), f"{found.rule}; the answer {complaint}")
        (answer,) = named
        detail = f"{found.rule}; compared as options"
        return Verdict.correct(answer, detail) if named == gold else Verdict.wrong(answer, detail)

    def gold_response(self, reference: str) -> str | None:
        """A response that states the reference; None where none can."""
        return self._reader.stating(reference)

    def _read(self, response: str) -> Extracted | None:
        if self._reader.extraction != "lenient":
            return self._reader.read(response)
        text = self._reader.text(response)
        stated = extract(text, "marked")
        if stated is not None:
            return stated
        last_line = text.rstrip().rpartition("\n")[2].strip()
        return Extracted(last_line, "last line") if named_options(last_line, self.labels) else None


def named_options(answer: str, labels: str) -> tuple[str, ...]:
    """The different options that an answer names, in the order of `labels`, which are capitals or digits."""
    if len(answer) > MAX_CHOICE_CHARS:
        return ()
    plain = _plain(answer)
    alone = {part.strip(_BRACKETS).upper() for part in _SEPARATORS.split(plain)}
    if not alone <= set(labels):
        alone = _marked(plain, labels)
    return tuple(label for label in labels if label in alone)


def _plain(answer: str) -> str:
    """The answer without the commands and signs that only change its look."""
    for _ in range(_MAX_WRAPPINGS):
        answer, changed = _COMMAND.subn(r" \1 ", answer)
        if not changed:
            break
    return " ".join(_LOOKS.sub(" ", answer).split())


def _marked(plain: str, labels: str) -> set[str]:
    patterns = _patterns(labels)
    first = patterns.first.match(plain)
    found = {first[1].upper()} if first else set()
    for part in _WORD.split(plain)[1:]:  # "option c or option d"; in "the answer is a cat" the small letter is no label
        alone = {label.strip(_BRACKETS).upper() for label in _SEPARATORS.split(part)} - {""}
        found |= alone if alone <= set(labels) else set()
    return found | {next(filter(None, match.groups())).upper() for match in patterns.marked.finditer(plain)}


@lru_cache(maxsize=64)
def _patterns(labels: str) -> _Patterns:
    some = f"[{labels}]"
    # A letter behind a letter or a backslash is part of a word, of `f(A)` or of a command.
    marked = (
        rf"(?<![\w.\\])(?:[(\[] ?({some}) ?[)\]]|(?<![(\[])({some})(?=[).:\]](?!\w)))|{_WORD.pattern}[(\[]?({some})\b"
    )
    marked += rf"|{_WORD.pattern}[(\[]?((?i:{some}))[).:\]](?!\w)"
    return _Patterns(re.compile(rf"(?i)[(\[]? ?({some}) ?[)\].:](?!\d)"), re.compile(marked))


def _checked_labels(labels: str) -> str:
    if isinstance(labels, str):
        capitals = labels.upper()
        if len(capitals) >= 2 and capitals.isascii() and capitals.isalnum() and len(set(capitals)) == len(capitals):
            return capitals
    raise VerifierError(f"ChoiceVerifier labels is {labels!r}; expected different letters or digits, such as 'ABCDE'")
