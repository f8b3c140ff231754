"""How the time of a function grows with the length of its text."""

import time
from collections.abc import Callable

# From the short to the long text the length grows eightfold: time in proportion grows about so, and time that
# grows with the square 64-fold. Below the floor a measurement is noise.
SHORT, LONG = 30_000, 240_000
FLOOR_SECONDS = 0.004


def growth(function: Callable[[str], object], unit: str) -> float:
    """Return how many times more processor time the long text takes, the better of several measurements each."""
    short, long = (min(_seconds(function, unit * (size // len(unit))) for _ in range(3)) for size in (SHORT, LONG))
    return long / max(short, FLOOR_SECONDS)


def _seconds(function: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    function(text)
    return time.process_time() - start
