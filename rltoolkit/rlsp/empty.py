"""Responses of no token: samplers may give them, and nothing in them can be scored or learned from."""

__all__ = ["stand_in"]


def stand_in(responses: list[list[int]], logprobs: list[list[float]] | None, end: int) -> list[int]:
    """Put the token `end` into responses of no token, in place; returns their rows, which must not be counted.

    TRL reads the last token of every response, and a row without one has no place in its tensors.
    """
    rows = [row for row, ids in enumerate(responses) if len(ids) == 0]
    for row in rows:
        responses[row] = [end]
        if logprobs is not None:
            logprobs[row] = [0.0]
    return rows
