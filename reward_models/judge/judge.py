"""The judge: batches in, judgements out, order kept."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from reward_models.errors import VerifierError
from reward_models.judge.engine import Engine
from reward_models.judge.judgement import JudgeCounts, JudgedPair, Judgement, JudgeOutcome
from reward_models.judge.prompts import (
    BETTER_ANSWER,
    Question,
    differ_only_in_cut,
    preference_question,
    rubric_question,
    score_question,
)
from reward_models.judge.settings import JudgeSettings
from reward_models.judge.tally import Tally
from reward_models.judge.transport import require_openai


class Judge:
    """Asks a language model for scores, grades and preferences, many at a time.

    The methods block until the whole batch is judged and keep its order; a failure is a Judgement with its own outcome
    and the value None, never an exception. They may be called from any thread; async code should not be held up by
    them: `await asyncio.to_thread(judge.score_many, ...)`. Questions that are equal within one call are asked once.
    Starts its thread and its connections at the first question; `close()`, leaving a `with` block, or the end of the
    process stops them. Picklable: the settings travel, connections and counts do not.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self._tally = Tally()
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._finalizer: weakref.finalize[..., Judge] | None = None
        _JUDGES.add(self)

    def score_many(
        self, criterion: str, responses: Sequence[str], prompts: Sequence[str] | None = None
    ) -> list[Judgement]:
        """Rate each response with a number in [0, 1] by `criterion`; it is shown its prompt, if there is one.

        Raises:
            VerifierError: a list is no list of texts, the lengths differ, the key is not set, or openai is missing.
        """
        _require_text("criterion", criterion)
        shown_prompts: Sequence[str | None] = [None] * len(responses) if prompts is None else prompts
        _same_length({"responses": responses, "prompts": shown_prompts})
        limit = self.settings.max_text_chars
        return self._judge(
            [
                _unfit(response, maybe=prompt) or score_question(criterion, response, prompt, max_chars=limit)
                for response, prompt in zip(responses, shown_prompts, strict=True)
            ]
        )

    def rubric_many(
        self,
        rubrics: str | Sequence[str],
        prompts: Sequence[str],
        responses: Sequence[str],
        references: Sequence[str | None] | None = None,
    ) -> list[Judgement]:
        """Grade each response from 1 to 5 by a rubric, one for all or one for each.

        A reference, where there is one, is an answer that deserves a 5.

        Raises:
            VerifierError: a list is no list of texts, the lengths differ, the key is not set, or openai is missing.
        """
        count = _same_length({"prompts": prompts, "responses": responses})
        if isinstance(rubrics, str):
            _require_text("rubrics", rubrics)
        rubrics = [rubrics] * count if isinstance(rubrics, str) else rubrics
        references = [None] * count if references is None else references
        _same_length({"responses": responses, "rubrics": rubrics, "references": references})
        limit = self.settings.max_text_chars
        return self._judge(
            [
                _unfit(rubric, prompt, response, maybe=reference)
                or rubric_question(rubric, prompt, response, reference, max_chars=limit)
                for rubric, prompt, response, reference in zip(rubrics, prompts, responses, references, strict=True)
            ]
        )

    def prefer_many(
        self, prompts: Sequence[str], firsts: Sequence[str], seconds: Sequence[str], criterion: str = BETTER_ANSWER
    ) -> list[JudgedPair]:
        """Compare two responses to each prompt by `criterion`, in both orders.

        Raises:
            VerifierError: a list is no list of texts, the lengths differ, the key is not set, or openai is missing.
        """
        _require_text("criterion", criterion)
        count = _same_length({"prompts": prompts, "firsts": firsts, "seconds": seconds})
        limit = self.settings.max_text_chars
        orders = [(firsts, seconds), (seconds, firsts)]
        judgements = self._judge(
            [
                _unfit(prompt, shown_a, shown_b)
                or _alike(shown_a, shown_b, limit)
                or preference_question(criterion, prompt, shown_a, shown_b, max_chars=limit)
                for as_a, as_b in orders
                for prompt, shown_a, shown_b in zip(prompts, as_a, as_b, strict=True)
            ]
        )
        pairs = [JudgedPair(*both) for both in zip(judgements[:count], judgements[count:], strict=True)]
        self._tally.add_pairs(pairs)
        return pairs

    def require_ready(self) -> None:
        """Check, without asking anything, that questions can be asked.

        Raises:
            VerifierError: the key is not set, or the openai package is missing.
        """
        require_openai()
        self.settings.api_key()

    def counts(self) -> JudgeCounts:
        """Outcomes, requests, tokens, cost and position bias since this object was made."""
        return self._tally.counts(self.settings)

    def close(self) -> None:
        """Stop the thread and close the connections; a later question starts them again."""
        with self._lock:
            finalizer, self._finalizer, self._engine = self._finalizer, None, None
        if finalizer is not None:
            finalizer()

    def __enter__(self) -> Self:
        """Nothing is started before the first question."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __reduce__(self) -> tuple[type[Judge], tuple[JudgeSettings]]:
        """Connections stay behind."""
        return (type(self), (self.settings,))

    def _judge(self, questions: Sequence[Question | Judgement]) -> list[Judgement]:
        """Answer each question; a judgement in the place of one stands for itself, and is never sent."""
        asked = [question for question in questions if isinstance(question, Question)]
        answers = iter(self._started().answer(asked) if asked else [])
        judgements = [question if isinstance(question, Judgement) else next(answers) for question in questions]
        self._tally.add("cut", sum(question.cut for question in asked))
        self._tally.add_judgements(judgements)
        return judgements

    def _started(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = Engine(self.settings, self._tally)
                self._finalizer = weakref.finalize(self, self._engine.stop)
            return self._engine

    def _after_fork(self) -> None:
        """In a forked process: thread and connections are the parent's, whose other threads may have held a lock."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._lock, self._engine, self._finalizer = threading.Lock(), None, None
        self._tally.renew_lock()


_JUDGES: weakref.WeakSet[Judge] = weakref.WeakSet()


def _after_fork() -> None:
    for judge in list(_JUDGES):
        judge._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _unfit(*values: object, maybe: object = None) -> Judgement | None:
    """The judgement of what cannot be asked about, None where it can."""
    given = values if maybe is None else (*values, maybe)
    if not all(isinstance(value, str) for value in given):
        return _not_sent("what is to be judged is no text (str)")
    if not all(_has_encoding(str(value)) for value in given):
        return _not_sent("a text holds a lone surrogate, which has no encoding")
    return None


def _alike(first: str, second: str, limit: int) -> Judgement | None:
    """A comparison of what looks the same would be a tie for no reason, and a leaning to the first."""
    if not differ_only_in_cut(first, second, limit):
        return None
    return _not_sent(f"the responses differ only in what is cut; raise max_text_chars above {limit}")


def _not_sent(reason: str) -> Judgement:
    return Judgement(JudgeOutcome.BAD_REQUEST, None, f"not sent: {reason}")


def _has_encoding(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or not _has_encoding(value):
        raise VerifierError(f"{name} is {value!r}; expected the text that tells the judge what to go by")


def _same_length(columns: Mapping[str, Sequence[object]]) -> int:
    for name, column in columns.items():
        if isinstance(column, str | bytes):
            raise VerifierError(f"{name} is one text (a {type(column).__name__}); give a list with one per question")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise VerifierError(f"the lengths differ: {lengths}; give one of each per question")
    return next(iter(lengths.values()))
