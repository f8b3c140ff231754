"""The accounting of `rollout.py`, without an engine: what is asked, which bytes must move, what counts as a number."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Size:
    """A model's shape, and how much is asked of it."""

    shape: dict[str, Any]
    prompts: int
    longest_prompt: int
    most_new_tokens: int
    copied_bytes: int


def _shape(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
    }  # fmt: skip


SIZES = {
    "tiny": Size(_shape(64, 128, 2, 2, 1, 512), 16, 24, 24, 1 << 26),
    "0.5b": Size(_shape(896, 4864, 24, 14, 2, 151_936), 256, 512, 512, 1 << 32),
    "1.5b": Size(_shape(1536, 8960, 28, 12, 2, 151_936), 256, 512, 512, 1 << 32),
}


@dataclass(frozen=True)
class Work:
    """What every engine is asked for: distinct prompts, and how many tokens follow each."""

    prompts: list[list[int]]
    limits: list[int]

    @property
    def tokens(self) -> int:
        """All tokens to be sampled."""
        return sum(self.limits)


@dataclass(frozen=True)
class Traffic:
    """Bytes that decoding cannot avoid to move."""

    weight_bytes: int
    """Read at every step."""
    kv_bytes: int
    """Keys and values of one token in all layers."""


def make_work(size: Size, seed: int = 0) -> Work:
    """Return ragged prompts and limits, the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(size.longest_prompt // 8, size.longest_prompt + 1, (size.prompts,), generator=generator)
    draws = torch.rand(size.prompts, generator=generator, dtype=torch.float64)
    limits = (-draws.log() * size.most_new_tokens / 2.5).round().clamp(size.most_new_tokens // 16, size.most_new_tokens)
    vocabulary = size.shape["vocab_size"]
    prompts = [torch.randint(3, vocabulary, (n,), generator=generator).tolist() for n in lengths.tolist()]
    return Work(prompts, limits.int().tolist())


def decode_traffic(model: nn.Module) -> Traffic:
    """Count the bytes of a model's weights that each step reads, and those of a token's keys and values."""
    config: Any = model.config
    weights = sum(p.numel() * p.element_size() for p in model.parameters())  # a tied embedding is listed once
    if not config.tie_word_embeddings:
        table = model.get_input_embeddings().weight
        weights -= table.numel() * table.element_size()
    head = config.hidden_size // config.num_attention_heads
    item = next(model.parameters()).element_size()
    return Traffic(weights, 2 * config.num_hidden_layers * config.num_key_value_heads * head * item)


def least_bytes(prompt_lengths: Sequence[int], limits: Sequence[int], traffic: Traffic) -> int:
    """Count the bytes that drawing `limits[i]` tokens after prompts of those lengths moves at least.

    The prompts' pass gives the first token of each row. The step that draws token j of a row (from 2) reads the keys
    and values of its prompt and of j - 2 tokens and writes those of one more.
    """
    total = traffic.weight_bytes + traffic.kv_bytes * sum(prompt_lengths)
    for j in range(2, max(limits) + 1):
        held = [prompt + j - 1 for prompt, limit in zip(prompt_lengths, limits, strict=True) if limit >= j]
        total += traffic.weight_bytes + traffic.kv_bytes * sum(held)
    return total


def ceiling_tokens_per_second(work: Work, traffic: Traffic, bytes_per_second: float) -> float:
    """Return the rate that memory allows when all rows run at once."""
    moved = least_bytes([len(prompt) for prompt in work.prompts], work.limits, traffic)
    return work.tokens / (moved / bytes_per_second)


def failed(error: Exception) -> dict[str, Any]:
    """Record an engine that gave no number."""
    return {"outcome": f"failed: {type(error).__name__}: {error}"[:500]}


def summary(outcome: dict[str, Any], tokens: int, ceiling: float) -> dict[str, Any]:
    """Turn an engine's seconds into rates with their spread; an outcome without seconds stays as it is."""
    if "seconds" not in outcome:
        return outcome
    rates = sorted(tokens / seconds for seconds in outcome["seconds"])
    median = statistics.median(rates)
    return {
        "outcome": "measured",
        "tokens_per_second": {"median": round(median), "min": round(rates[0]), "max": round(rates[-1])},
        "fraction_of_ceiling": round(median / ceiling, 4),
    }


def extent(values: Sequence[int]) -> dict[str, float]:
    """Return the shortest, the median and the longest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}
