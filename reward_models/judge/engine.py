"""A started judge: its connections, its thread and its folder of answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from reward_models.judge.cache import AnswerCache, KeptAnswer, content_key
from reward_models.judge.completion import Reply
from reward_models.judge.judgement import Judgement, JudgeOutcome
from reward_models.judge.loop_thread import LoopThread
from reward_models.judge.prompts import PROMPT_VERSION, Question
from reward_models.judge.reading import read_answer
from reward_models.judge.settings import JudgeSettings
from reward_models.judge.tally import Tally
from reward_models.judge.transport import RETRIED, Transport

logger = logging.getLogger(__name__)

# A batch is given up after as many failures in a row as there are requests in flight, but not for fewer than these.
MIN_FAILURES_IN_A_ROW = 4


class _Batch:
    """Gives the rest of a batch up where waiting helps nobody: a dead server costs one time limit, not hours."""

    def __init__(self, concurrency: int) -> None:
        self._limit = max(MIN_FAILURES_IN_A_ROW, concurrency)
        self._in_a_row = 0
        self.given_up: Reply | None = None

    def note(self, reply: Reply) -> None:
        """See how a question ended, all its retries included."""
        self._in_a_row = self._in_a_row + 1 if reply.outcome in RETRIED else 0
        if self._in_a_row == self._limit:
            self.given_up = Reply(
                reply.outcome, f"not asked: {self._limit} questions of the batch in a row ended so: {reply.text}"
            )


class Engine:
    """Answers questions from disk or from the server; of no use in a forked process, which lacks the thread."""

    def __init__(self, settings: JudgeSettings, tally: Tally) -> None:
        self._settings = settings
        self._tally = tally
        self._cache = None if settings.cache_dir is None else AnswerCache(settings.cache_dir)
        self._transport = Transport(settings, tally)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._loop = LoopThread(self._transport.aclose)

    def answer(self, questions: Sequence[Question]) -> list[Judgement]:
        """Answer each question, in order; equal ones are asked once."""
        keys = [self._key(question) for question in questions]
        judgements: dict[str, Judgement] = {}
        missing: dict[str, Question] = {}
        for key, question in dict(zip(keys, questions, strict=True)).items():
            kept = self._kept(key, question)
            if kept is None:
                missing[key] = question
            else:
                judgements[key] = kept
        if missing:
            judgements |= self._loop.run(self._ask_all(missing))
        return [judgements[key] for key in keys]

    def stop(self) -> None:
        """Cancel what runs and close the connections."""
        self._loop.stop()

    async def _ask_all(self, questions: Mapping[str, Question]) -> dict[str, Judgement]:
        batch = _Batch(self._settings.concurrency)
        async with asyncio.TaskGroup() as group:  # should one raise, nobody pays for the others' answers
            tasks = {key: group.create_task(self._ask(key, question, batch)) for key, question in questions.items()}
        return {key: task.result() for key, task in tasks.items()}

    async def _ask(self, key: str, question: Question, batch: _Batch) -> Judgement:
        async with self._slots:  # kept while waiting for a retry, so that an overloaded server is asked less
            reply = batch.given_up or await self._transport.ask(question)
            batch.note(reply)
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        if reply.outcome is not JudgeOutcome.OK:
            return Judgement(reply.outcome, None, reply.text, *tokens)
        reading = read_answer(reply.text, question.scale)
        if reading.value is None:
            return Judgement(JudgeOutcome.BAD_ANSWER, None, reading.reason, *tokens)
        self._keep(key, KeptAnswer(reply.text, *tokens))  # at once: what is paid for survives a crash of the batch
        return Judgement(JudgeOutcome.OK, reading.value, reading.reason, *tokens)

    def _key(self, question: Question) -> str:
        """Everything the answer depends on, and the wording's version beside the words themselves."""
        parts: dict[str, Any] = {
            "base_url": self._transport.base_url,
            "model": self._settings.model,
            "messages": question.messages,
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
            "structured": self._settings.structured,
            "schema": question.scale.schema,
            "prompt_version": PROMPT_VERSION,
        }
        return content_key(parts)

    def _kept(self, key: str, question: Question) -> Judgement | None:
        kept = None if self._cache is None else self._cache.get(key)
        if kept is None:
            return None
        reading = read_answer(kept.text, question.scale)
        if reading.value is None:
            return None
        self._tally.add("cache_hits")
        tokens = (kept.prompt_tokens, kept.completion_tokens)
        return Judgement(JudgeOutcome.OK, reading.value, reading.reason, *tokens, cached=True)

    def _keep(self, key: str, answer: KeptAnswer) -> None:
        """A full disk costs the kept answer, not the judgement: it is counted, and said once."""
        if self._cache is None:
            return
        try:
            self._cache.put(key, answer)
        except OSError as error:
            if not self._tally.add("cache_errors"):
                logger.warning("answers of the judge are not kept in %s: %s", self._cache.folder, error)
