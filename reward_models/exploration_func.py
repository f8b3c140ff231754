"""An exploration reward as a reward function of TRL's trainers; it is never given the reference."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reward_models.answers.boxes import last_box
from reward_models.errors import VerifierError
from reward_models.exploration import ExplorationReward
from reward_models.reward_func import AsyncRewardFunction, Completion, RewardFunction, response_of
from reward_models.verdict import Outcome, error_text

Decoder = Callable[[Sequence[int]], str]
logger = logging.getLogger(__name__)


class ExplorationFunction:
    """Pays completions for exploration; what `as_exploration_func` returns.

    Picklable where its parts are. A copy that is made together with its outcome function stays tied to that copy.
    """

    def __init__(
        self, exploration: ExplorationReward, *, outcome: RewardFunction | None = None, decode: Decoder | None = None
    ) -> None:
        if isinstance(exploration, type) or not callable(getattr(exploration, "score", None)):
            kind = f"the class {exploration.__name__}" if isinstance(exploration, type) else type(exploration).__name__
            raise VerifierError(
                f"the exploration reward is {kind}, expected an object with a method "
                "score(response, token_count); pass an object that has one"
            )
        if isinstance(outcome, AsyncRewardFunction):
            raise VerifierError(
                "outcome is an async reward function, which TRL runs after the others; "
                "pass the function itself, without as_async(), here and to the trainer"
            )
        if outcome is not None and not isinstance(outcome, RewardFunction):
            raise VerifierError(
                f"outcome is {type(outcome).__name__}; expected what as_reward_func(...) returns, "
                "since a bare score does not tell a wrong answer from none"
            )
        self.exploration = exploration
        self.outcome = outcome
        self.decode = decode
        self.__name__ = str(getattr(exploration, "__name__", type(exploration).__name__))

    def __call__(
        self,
        prompts: Sequence[Any],  # noqa: ARG002  TRL passes it
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float | None]:
        """Return one score in [0, 1] per completion; None where the outcome is unscorable, or the reward failed.

        Raises:
            VerifierError: the outcome function has not judged these completions, a score is no number in [0, 1], or
                the exploration reward says that it was set up wrongly.
        """
        texts = [response_of(completion) for completion in completions]
        fixed = self._fixed(texts)
        rows = [row for row in range(len(texts)) if row not in fixed]
        tokens = [tokens_before_answer(texts[row], completion_ids[row], self.decode) for row in rows]
        paid = dict(zip(rows, self._scores([texts[row] for row in rows], tokens), strict=True))
        scores = [fixed[row] if row in fixed else paid[row] for row in range(len(texts))]
        log_metric: Callable[[str, float], None] | None = columns.get("log_metric")
        if log_metric is not None and scores:
            log_metric(f"exploration/{self.__name__}/gated", sum(s == 0.0 for s in fixed.values()) / len(scores))
            log_metric(f"exploration/{self.__name__}/failed", sum(s is None for s in paid.values()) / len(scores))
            own: Callable[[], Mapping[str, float]] | None = getattr(self.exploration, "metrics", None)
            for key, value in ({} if own is None else own()).items():
                log_metric(f"exploration/{self.__name__}/{key}", value)
        return scores

    def _fixed(self, texts: list[Any]) -> dict[int, float | None]:
        """What needs no look at the effort: None for what cannot be judged, 0.0 for what states no answer."""
        fixed: dict[int, float | None] = {row: None for row, text in enumerate(texts) if not isinstance(text, str)}
        if self.outcome is None:
            return fixed
        if self.outcome.last_responses != texts:
            raise VerifierError(
                f"{self.__name__} was called for {len(texts)} completions that {self.outcome.__name__} has not judged "
                f"just before (its last call had {len(self.outcome.last_responses)}); list the outcome function before "
                "the exploration function, reward_funcs=[outcome, exploration], in the same trainer"
            )
        for row, verdict in enumerate(self.outcome.last_verdicts):
            if not verdict.is_scorable:
                fixed[row] = None
            elif verdict.outcome is Outcome.NO_ANSWER:
                fixed[row] = 0.0
        return fixed

    def _scores(self, responses: list[str], tokens: list[int]) -> list[float | None]:
        """Ask the reward, at once where it can answer for many."""
        many: Callable[[list[str], list[int]], Sequence[Any]] | None = getattr(self.exploration, "score_many", None)
        found: Sequence[Any]
        if many is None:
            found = [self._asked(self.exploration.score, *pair) for pair in zip(responses, tokens, strict=True)]
        else:
            asked = self._asked(many, responses, tokens)
            found = [None] * len(responses) if asked is None else asked
        if len(found) != len(responses):
            raise VerifierError(
                f"{self.__name__}.score_many returned {len(found)} scores for {len(responses)} responses; "
                "return one per response, None where it failed"
            )
        return [self._checked(score) for score in found]

    def _asked(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """Call foreign code; what it raises is a score that failed, unless it says that it was set up wrongly."""
        try:
            return ask(*arguments)
        except VerifierError:
            raise
        except Exception as error:  # noqa: BLE001  one response must not end the training; it is counted as failed
            logger.warning("%s failed and gives no score: %s", self.__name__, error_text(error))
            return None

    def _checked(self, score: Any) -> float | None:
        if score is None:
            return None
        try:
            number = math.nan if isinstance(score, bool | str) else float(score)
        except (TypeError, ValueError):
            number = math.nan
        if not 0.0 <= number <= 1.0:
            raise VerifierError(
                f"{self.__name__} gave the score {score!r}; an exploration reward is a number in [0, 1], "
                "or None where it failed"
            )
        return number


def as_exploration_func(
    exploration: ExplorationReward, *, outcome: RewardFunction | None = None, decode: Decoder | None = None
) -> ExplorationFunction:
    """Make a reward function for TRL out of an exploration reward.

    With `outcome`, the function that judges the same completions and stands before this one in `reward_funcs`, effort
    is paid only where it can be: None where the outcome is unscorable, so that the trainer drops the completion, and
    0.0 where there is no answer. Without `outcome` every completion is paid for its effort, as RLSPTrainer wants it,
    which gates by itself. `decode` turns token ids into text, to find the tokens before the answer; for example
    `functools.partial(tokenizer.decode, skip_special_tokens=True)`. Without it their number is estimated from the
    share of characters. Where the exploration reward has a method
    `score_many(responses, token_counts) -> list[float | None]` it is asked once per call, also for no responses; where
    it has a method `metrics() -> dict[str, float]`, which tells of its last call under keys that are always the same,
    these are logged as `exploration/<name>/<key>`.

    A None of the exploration reward itself (a judge that failed) or an error that it raises, a VerifierError apart, is
    left out by RLSPTrainer; TRL's own trainers sum over what is there, so for them it is no bonus. Both are counted as
    `exploration/<name>/failed`.
    """
    return ExplorationFunction(exploration, outcome=outcome, decode=decode)


def tokens_before_answer(text: str, ids: Sequence[int], decode: Decoder | None = None) -> int:
    """How many of a response's tokens come before its last box; all of them without one.

    With `decode` the box is looked for in the decoded tokens, which hold more than `text` where a chat template takes
    the thinking out of a message.
    """
    if decode is not None:
        return tokens_before(answer_start(decode(ids)), ids, decode)
    start = answer_start(text)
    return len(ids) if start is None else len(ids) * start // len(text)


def answer_start(text: str) -> int | None:
    """Where the answer's box opens, None without one."""
    box = last_box(text)
    return None if box is None else box.start


def tokens_before(position: int | None, ids: Sequence[int], decode: Decoder) -> int:
    """How many tokens lie before a character of the decoded text; all of them for None.

    Found by decoding prefixes, so that nothing is ever encoded again.
    """
    if position is None:
        return len(ids)
    low, high = 0, len(ids)  # the longest prefix whose text ends at or before the position
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(decode(ids[:middle])) <= position else (low, middle - 1)
    return low
