"""Waits before another attempt."""

import time
from email.utils import formatdate

import pytest

from reward_models.judge.waiting import MAX_BACKOFF_S, asked_wait, backoff


def test_the_back_off_doubles_up_to_a_minute_with_some_chance():
    for attempt, full in [(0, 0.5), (1, 1.0), (3, 4.0), (7, MAX_BACKOFF_S), (10_000, MAX_BACKOFF_S)]:
        waits = [backoff(attempt, 0.5) for _ in range(50)]
        assert full / 2 <= min(waits) < max(waits) <= full


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "inf"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
    ],
)
def test_what_the_server_asks(headers, seconds):
    assert asked_wait(headers) == seconds


def test_a_wait_until_a_date():
    assert 50 < asked_wait({"retry-after": formatdate(time.time() + 100, usegmt=True)}) <= 101
