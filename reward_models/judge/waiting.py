"""How long to wait before the next attempt."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

MAX_BACKOFF_S = 60.0


def backoff(attempt: int, first_s: float) -> float:
    """About `first_s` doubled with each attempt (0, 1, ...), at most a minute; half of it is chance.

    Chance keeps many processes that failed together from coming back together.
    """
    full = min(MAX_BACKOFF_S, first_s * 2.0 ** min(attempt, 30))
    return full * random.uniform(0.5, 1.0)


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait (retry-after-ms, or Retry-After in seconds or as a date), 0 if unsaid."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is not None or value is None:
        return seconds or 0.0
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
