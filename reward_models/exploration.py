"""Exploration rewards: what effort is worth, without looking at correctness.

None of these functions receives the reference, so none can pay for a right answer. All are in [0, 1].
"""

from __future__ import annotations

import re
import time
from typing import Any, Protocol, runtime_checkable

from reward_models.answers.boxes import first_simple_box, last_box
from reward_models.errors import VerifierError
from reward_models.repetition import repeated_share

# A pattern is tried on a line of at most this many characters, so that one endless line cannot make it crawl.
MAX_LINE_CHARS = 2000
# All lines of one response together; a pattern that backtracks without end is given up, in the process that trains.
MAX_MATCH_S = 1.0
# The released RLSP trainer counts four characters as one token.
PAPER_CHARS_PER_TOKEN = 4.0


@runtime_checkable
class ExplorationReward(Protocol):
    """Pays for exploration in one response; pure and picklable."""

    def score(self, response: str, token_count: int) -> float:
        """Return a number in [0, 1]; `token_count` is the number of response tokens before the answer."""
        ...


class LengthExploration:
    """u = min(1, L / target_tokens), with L the number of response tokens before the answer.

    `repetition_penalty` p in [0, 1] makes it u * (1 - p * r), where r is the share of the text before the answer that
    repeats what stands earlier in it (`reward_models.repetition`). With 0, the default, the text is not looked at.

    Raises:
        VerifierError: `target_tokens` is below 1, or `repetition_penalty` is not in [0, 1].
    """

    def __init__(self, target_tokens: int, repetition_penalty: float = 0.0) -> None:
        self.target_tokens = _positive("target_tokens", target_tokens)
        self.repetition_penalty = _share("repetition_penalty", repetition_penalty)

    def score(self, response: str, token_count: int) -> float:
        """Return u for one response, less what repetition costs."""
        effort = min(1.0, max(0, token_count) / self.target_tokens)
        return effort * _unrepeated(_before_answer(response), self.repetition_penalty)


class DistinctSteps:
    r"""u = min(1, n / target_steps), with n the number of different lines before the answer.

    A repeated line counts once, and so do lines that differ only in white space or invisible characters. With
    `pattern` (a regular expression, searched in each line) only lines that match count as attempts, for
    example `pattern=r"="` for lines with an equation. A response whose lines take it too long has no score: `score`
    raises TimeoutError, which `as_exploration_func` counts as failed. `repetition_penalty` is that of
    `LengthExploration`, over all lines before the answer: a repeated line then costs something, beside earning nothing.

    Raises:
        VerifierError: `target_steps` is below 1, `pattern` is no regular expression, or `repetition_penalty` is not in
            [0, 1].
    """

    def __init__(self, target_steps: int, pattern: str | None = None, repetition_penalty: float = 0.0) -> None:
        self.target_steps = _positive("target_steps", target_steps)
        self.pattern = compile_pattern(pattern)
        self.repetition_penalty = _share("repetition_penalty", repetition_penalty)

    def score(self, response: str, token_count: int) -> float:  # noqa: ARG002  the protocol's argument
        """Return u for one response, less what repetition costs; the number of tokens is not looked at."""
        effort = min(1.0, count_attempts(response, self.pattern, distinct=True) / self.target_steps)
        return effort * _unrepeated(_before_answer_line(response), self.repetition_penalty)


def attempt_lines(response: str, pattern: str | re.Pattern[str] | None = None) -> list[str]:
    """Return the non-empty lines before the answer that match `pattern`, white space normalised, in order.

    The answer is the last balanced box; the line it stands on is no attempt. Without a box every line counts.

    Raises:
        TimeoutError: the pattern took longer than MAX_MATCH_S.
    """
    compiled = compile_pattern(pattern)
    lines = [line for line in map(_normalised, _before_answer_line(response).split("\n")) if line]
    if compiled is None:
        return lines
    end = time.monotonic() + MAX_MATCH_S
    try:
        return [line for line in lines if compiled.search(line[:MAX_LINE_CHARS], timeout=_left(end))]
    except TimeoutError:
        raise TimeoutError(
            f"the pattern {compiled.pattern!r} took more than {MAX_MATCH_S} s on one response; "
            "write it without repetitions inside or beside each other"
        ) from None


def count_attempts(response: str, pattern: str | re.Pattern[str] | None = None, *, distinct: bool = False) -> int:
    """Count the lines of `attempt_lines`; with `distinct` a repeated line counts once."""
    lines = attempt_lines(response, pattern)
    return len(set(lines)) if distinct else len(lines)


def paper_length(response: str) -> float:
    """Return L of the released RLSP reward: characters before the first simple box, divided by 4.

    Of the stripped response; without a parsable box the whole response counts. May be 0: the caller floors
    it.
    """
    stripped = response.strip()
    box = first_simple_box(stripped)
    return (len(response) if box is None else box.start) / PAPER_CHARS_PER_TOKEN


def compile_pattern(pattern: str | re.Pattern[str] | None) -> Any:
    """Compile a regular expression given by the user, for the `regex` package: its search takes a `timeout`.

    What that package has compiled, and None, stay what they are.

    Raises:
        VerifierError: it does not compile.
    """
    if pattern is None:
        return None
    import regex  # type: ignore[import-untyped]

    if isinstance(pattern, regex.Pattern):
        return pattern
    try:
        compiled = re.compile(pattern)  # the dialect is that of `re`
        ascii_only = regex.ASCII if compiled.flags & re.ASCII else 0
        return regex.compile(compiled.pattern, int(compiled.flags & ~re.ASCII) | ascii_only)
    except (re.error, regex.error) as error:
        raise VerifierError(
            f"pattern is {pattern!r}, which is no regular expression ({error}); give one that re compiles"
        ) from error


def _unrepeated(text: str, penalty: float) -> float:
    """The factor that repetition leaves of a reward: 1 without a penalty."""
    return 1.0 - penalty * repeated_share(text) if penalty > 0 else 1.0


def _before_answer(response: str) -> str:
    box = last_box(response)
    return response if box is None else response[: box.start]


def _before_answer_line(response: str) -> str:
    text = response.replace("\r\n", "\n").replace("\r", "\n")
    box = last_box(text)
    return text if box is None else text[: text.rfind("\n", 0, box.start) + 1]


def _normalised(line: str) -> str:
    """Collapse white space and drop what cannot be seen, so that look-alike lines are equal."""
    if not line.isprintable():
        line = "".join(c for c in line if c.isprintable() or c.isspace())
    return " ".join(line.split())


def _left(end: float) -> float:
    return max(end - time.monotonic(), 1e-3)


def _share(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise VerifierError(f"{name} is {value!r}; expected a number in [0, 1], 0 for none")
    return float(value)


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise VerifierError(f"{name} is {value!r}; expected an integer of at least 1")
    return value
