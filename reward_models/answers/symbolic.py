"""Equality by algebra: math-verify, called so that it neither guesses nor sets alarms."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

# What our own reader does not read is short, if it is an answer. No expansion has more than
# a few thousand terms.
MAX_CHARS = 60
MAX_BRACKETS = 4
MAX_ROOTS = 2
# References repeat within a batch; parsed ones are kept.
REFERENCE_CACHE = 4096

_COMMAND = re.compile(r"\\([A-Za-z]+)")
# The parser passes over what it does not expect: `2'2` is 22 to it, and `108_8` is 108.
_SIGNS = re.compile(r"[0-9A-Za-z\\{}()\[\]|^+\-*/.,=& ]*")
# A number or a letter to the power of a number of two digits; nothing else may have a power.
_POWER = re.compile(r"(?:[0-9.]+|[A-Za-z])\s*\^\s*(?:[0-9]|\{\s*-?[0-9]{1,2}\s*\})(?!\s*\^)")
_SIDE_BY_SIDE = re.compile(r"[0-9.]\s+[0-9.]")
_WORD = re.compile(r"[A-Za-z]{3,}")
# Neither functions nor binomials: our own reader reads them, and towers of exponentials have no bound.
_COMMANDS_TEXT = (
    "frac sqrt cdot times div pi det in cup cap setminus emptyset mathbb begin end pmatrix bmatrix vmatrix matrix le "
    "ge ne alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi chi psi omega Delta "
    "Theta Lambda Xi Pi Sigma Phi Psi Omega ell"
)
_COMMANDS = frozenset(_COMMANDS_TEXT.split())


def same_by_algebra(reference: str, answer: str) -> bool:
    """Ask math-verify whether two bare answers are equal; an answer it cannot read is not.

    Only for texts that `readable_by_algebra` lets through: others can take for ever.
    """
    from math_verify import verify

    # What could not be parsed comes back as text, and text was compared before.
    gold = [value for value in _parse_cached(reference) if not isinstance(value, str)]
    prediction = [value for value in _parse(answer) if not isinstance(value, str)]
    if not gold or not prediction:
        return False
    return bool(verify(gold, prediction, timeout_seconds=None) and verify(prediction, gold, timeout_seconds=None))


def readable_by_algebra(text: str) -> bool:
    """True if a text holds nothing but signs and commands that the parser knows, and little enough to be expanded."""
    if (
        len(text) > MAX_CHARS
        or not _SIGNS.fullmatch(text)
        or not _balanced(text)
        or text.count("(") + text.count("[") > MAX_BRACKETS
        or text.count("\\sqrt") > MAX_ROOTS
        or "^" in _POWER.sub("", text)
        or _SIDE_BY_SIDE.search(text)
        or any(command not in _COMMANDS for command in _COMMAND.findall(text))
    ):
        return False
    return all(word in _COMMANDS for word in _WORD.findall(_COMMAND.sub(" ", text)))


def _balanced(text: str) -> bool:
    depths = {"(": 0, "[": 0, "{": 0}
    closing = {")": "(", "]": "[", "}": "{"}
    for character in text:
        if character in depths:
            depths[character] += 1
        elif character in closing:
            depths[closing[character]] -= 1
            if depths[closing[character]] < 0:
                return False
    return not any(depths.values())


def load() -> None:
    """Import what a comparison needs, and compare once."""
    same_by_algebra("\\frac{1}{2}x", "x/2")


@lru_cache(maxsize=REFERENCE_CACHE)
def _parse_cached(reference: str) -> Any:
    return _parse(reference)


def _parse(answer: str) -> Any:
    """Parse bare LaTeX; in a box math-verify takes the whole of it and picks nothing out of prose."""
    from math_verify import parse

    # It warns that its alarm is off. That is meant: alarms need the main thread and do not stop C code.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    boxed = f"\\boxed{{{answer}}}"
    return parse(boxed, _extraction(), extraction_mode="first_match", parsing_timeout=None)


@lru_cache(maxsize=1)
def _extraction() -> Any:
    from math_verify import LatexExtractionConfig

    return (LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False),)
