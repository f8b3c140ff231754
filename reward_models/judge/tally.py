"""Counting what a judge does; safe to use from several threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from reward_models.judge.judgement import JudgeCounts, JudgedPair, Judgement, JudgeOutcome
from reward_models.judge.settings import JudgeSettings


class Tally:
    """The counters behind `Judge.counts()`."""

    def __init__(self) -> None:
        self.renew_lock()
        self._outcomes: Counter[JudgeOutcome] = Counter()
        self._numbers: Counter[str] = Counter()
        self._bias_sum = 0.0

    def renew_lock(self) -> None:
        """In a forked process: a thread that stayed in the parent may have held the lock."""
        self._lock = threading.Lock()

    def add(self, name: str, count: int = 1) -> int:
        """Count under the name of a field of JudgeCounts; returns the number before."""
        with self._lock:
            before = self._numbers[name]
            self._numbers[name] += count
        return before

    def add_usage(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Count the tokens of one answer."""
        with self._lock:
            self._numbers["without_usage"] += prompt_tokens is None or completion_tokens is None
            self._numbers["prompt_tokens"] += prompt_tokens or 0
            self._numbers["completion_tokens"] += completion_tokens or 0

    def add_judgements(self, judgements: Sequence[Judgement]) -> None:
        """Count the outcomes of what is handed out."""
        with self._lock:
            self._outcomes.update(judgement.outcome for judgement in judgements)

    def add_pairs(self, pairs: Sequence[JudgedPair]) -> None:
        """Count the position bias of comparisons."""
        biases = [bias for bias in (pair.position_bias for pair in pairs) if bias is not None]
        with self._lock:
            self._numbers["pairs"] += len(biases)
            self._bias_sum += sum(biases)

    def counts(self, settings: JudgeSettings) -> JudgeCounts:
        """All of it at this moment."""
        with self._lock:
            numbers, pairs = Counter(self._numbers), self._numbers["pairs"]
            outcomes = {outcome: self._outcomes[outcome] for outcome in JudgeOutcome}
            bias = self._bias_sum / pairs if pairs else None
        cost = None
        if settings.price_per_million_in is not None and settings.price_per_million_out is not None:
            paid_in = numbers["prompt_tokens"] * settings.price_per_million_in
            cost = (paid_in + numbers["completion_tokens"] * settings.price_per_million_out) / 1e6
        return JudgeCounts(
            outcomes=outcomes,
            requests=numbers["requests"],
            retries=numbers["retries"],
            cache_hits=numbers["cache_hits"],
            cache_errors=numbers["cache_errors"],
            prompt_tokens=numbers["prompt_tokens"],
            completion_tokens=numbers["completion_tokens"],
            without_usage=numbers["without_usage"],
            cut=numbers["cut"],
            pairs=pairs,
            position_bias=bias,
            cost=cost,
        )
