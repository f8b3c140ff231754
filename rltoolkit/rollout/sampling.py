"""Drawing next tokens: logits and uniform numbers in, tokens and their log-probabilities out.

Every row brings its own uniform number, and a token is found by inverting the row's cumulative
distribution. What a row draws is therefore a function of its own logits and its own random stream,
whatever else is in the batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rltoolkit.types import SamplingParams

__all__ = ["Draw", "draw", "filter_logits", "uniforms"]

LARGEST_UNIFORM = 1.0 - 2.0**-50
"""Below 1 by enough that `u * total < total` in float64, so that no token of probability 0 is ever drawn."""

CDF_ELEMENTS = 1 << 24
"""At most so many float64 entries of cumulative distributions at a time (128 MiB)."""


class Draw(NamedTuple):
    """The next token of each row, and its log-probability."""

    tokens: Tensor
    """(B,) int64."""
    logprobs: Tensor
    """(B,) in the dtype of the logits, at least float32."""


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Draw `count` uniform numbers in [0, 1) from one random stream per seed.

    Returns (len(seeds), count) float64 on the CPU.     A longer row begins with the numbers of a shorter
    one. The numbers do not depend on the device of the model.
    """
    rows = torch.empty(len(seeds), count, dtype=torch.float64)
    generator = torch.Generator()
    for row, seed in zip(rows, seeds, strict=True):
        generator.manual_seed(seed)
        row.uniform_(generator=generator)
    return rows.clamp_(max=LARGEST_UNIFORM)


def filter_logits(logits: Tensor, sampling: SamplingParams) -> Tensor:
    """Apply temperature, then top-k, top-p and min-p, as transformers does; refused tokens get -inf.

    (B, V) in, (B, V) out. The most likely token always stays. Temperature 0 is not a distribution: not
    for here.
    """
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        logits = _keep_nucleus(logits, sampling.top_p)
    if sampling.min_p > 0:
        probabilities = logits.softmax(-1)
        least = probabilities.amax(-1, keepdim=True) * sampling.min_p
        logits = logits.masked_fill(probabilities < least, -torch.inf)
    return logits


def _keep_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose probability reaches `top_p`."""
    ascending, order = logits.sort(dim=-1)
    refused = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    refused[:, -1] = False
    return logits.masked_fill(refused.scatter(-1, order, refused), -torch.inf)


def draw(logits: Tensor, sampling: SamplingParams, uniforms_B: Tensor | None) -> Draw:  # noqa: N803
    """Draw one token per row of `logits` (B, V) with the row's uniform number (B,) float64.

    The log-probability is that under the distribution drawn from, filters included. Greedy (temperature
    0, uniforms None) takes the most likely token and gives its log-probability under the unscaled
    distribution. Logits that are not numbers give a log-probability that is NaN, never an error here: see
    the caller.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if uniforms_B is None:
        logprobs = logits.log_softmax(-1)
        tokens = logits.argmax(-1)
    else:
        logprobs = filter_logits(logits, sampling).log_softmax(-1)
        rows = max(1, CDF_ELEMENTS // logits.shape[-1])
        parts = zip(torch.split(logprobs, rows), torch.split(uniforms_B, rows), strict=True)
        tokens = torch.cat([_invert(part, u) for part, u in parts])
    return Draw(tokens, logprobs.gather(-1, tokens[:, None])[:, 0])


def _invert(logprobs: Tensor, u: Tensor) -> Tensor:
    """Return the first token at which the cumulative probability exceeds u; (B, V), (B,) -> (B,).

    Summed in float64: in float32 the end of a large vocabulary's sum would be too coarse for its rare tokens.
    """
    cumulative = logprobs.double().exp().cumsum(-1)
    target = u[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return tokens.clamp_(max=logprobs.shape[-1] - 1)  # reached by NaN alone
