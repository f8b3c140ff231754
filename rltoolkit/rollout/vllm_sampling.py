"""Sampling parameters in vLLM's words, for an engine in this process and for a server over HTTP alike."""

from collections.abc import Sequence
from typing import Any

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.base import stream_seed
from rltoolkit.types import VLLM_TEMPERATURES, SamplingParams

__all__ = ["choices_asked", "completion_request", "sampling_fields"]

SEED_BITS = 62
"""vLLM adds a sample's number to the seed, and the sum must stay below 2**63."""


def choices_asked(sampling: SamplingParams, n: int) -> int:
    """How many samples to ask vLLM for: it refuses more than one greedy sample, and they would be equal.

    Whoever asked for `n` greedy samples repeats the one.
    """
    return 1 if sampling.greedy else n


def sampling_fields(sampling: SamplingParams, n: int, seed: int, eos_token_ids: Sequence[int]) -> dict[str, Any]:
    """Return fields of vLLM's `SamplingParams` (and of a completion request) for `n` samples of one prompt.

    Every field is given, because a server takes absent ones from the model folder's generation config.
    Only `eos_token_ids` end a sample, whatever the served model's own configuration says. vLLM draws sample
    k with `seed + k`; the seed is spread first, so that neighbouring seeds share no stream. Raises
    RolloutError for a temperature that vLLM would change or refuse, and for filters that it applies in another
    order: it takes the nucleus of what min-p left, the toolkit applies min-p to the nucleus.
    """
    lowest, highest = VLLM_TEMPERATURES
    if not sampling.greedy and not lowest <= sampling.temperature <= highest:
        raise RolloutError(
            f"the temperature is {sampling.temperature}, vLLM samples at {lowest} to {highest}; give one of these, "
            "0 for the most likely token, or the transformers backend"
        )
    if not sampling.greedy and sampling.top_p < 1 and sampling.min_p > 0:
        raise RolloutError(
            f"top_p is {sampling.top_p} and min_p is {sampling.min_p}, which vLLM applies in the other order, so that "
            "it draws from another distribution; give one of them (top_p 1, or min_p 0), or the transformers backend"
        )
    neutral = sampling.greedy  # vLLM's own rule, so that both forms of a greedy request are the same
    return {
        "n": choices_asked(sampling, n),
        "max_tokens": sampling.max_new_tokens,
        "temperature": float(sampling.temperature),
        "top_p": 1.0 if neutral else float(sampling.top_p),
        "top_k": 0 if neutral else sampling.top_k,
        "min_p": 0.0 if neutral else float(sampling.min_p),
        "seed": stream_seed(seed, 0) % (1 << SEED_BITS),
        "logprobs": 0,
        "stop_token_ids": list(eos_token_ids),
        "ignore_eos": True,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def completion_request(
    model: str,
    prompt: Sequence[int],
    sampling: SamplingParams,
    n: int,
    seed: int,
    eos_token_ids: Sequence[int],
) -> dict[str, Any]:
    """Return the body of a POST to /v1/completions that gives token ids and log-probs for `prompt`."""
    fields = sampling_fields(sampling, n, seed, eos_token_ids)
    return {"model": model, "prompt": list(prompt), "return_token_ids": True, **fields}
