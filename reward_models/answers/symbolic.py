"""Equality by algebra: math-verify, called so that it neither guesses nor sets alarms."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

# References repeat within a batch; parsed ones are kept.
REFERENCE_CACHE = 4096


def same_by_algebra(reference: str, answer: str) -> bool:
    """Ask math-verify whether two bare answers are equal; an answer it cannot read is not.

    May run for ever on hostile input: the caller must be a process that can be killed.
    """
    from math_verify import verify

    gold = _parse_cached(reference)
    prediction = _parse(answer)
    if not gold or not prediction:
        return False
    return bool(verify(gold, prediction, timeout_seconds=None))


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
