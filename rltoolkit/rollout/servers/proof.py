"""Proof by numbers that a server samples from the policy in memory: log-probabilities of the same tokens.

A server that loaded another model, or that kept a stale copy of a weight, answers as quickly and as politely
as the right one; only its numbers differ. The proof finds another model, and layers that a load left out; it does
not find a missed step: one step of an optimiser changes log-probs by less than the rounding that is allowed here.
That every load is of the present weights rests on how they are written and loaded, see `policy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rltoolkit.rollout.adapters import base_module
from rltoolkit.rollout.modes import eval_mode
from rltoolkit.types import SamplingParams

__all__ = ["PROBE", "Proof", "make_proof", "probe_prompts"]

PROMPTS, PROMPT_TOKENS = 8, 8
PROBE = SamplingParams(temperature=1.0, max_new_tokens=1)
"""One token after each prompt, at temperature 1, where log-probs are the model's own."""

EXACT, ROUNDED = 0.01, 0.1
"""Mean difference allowed where both sides compute in float32, and otherwise. Measured: 1e-6 and 1e-2."""


def probe_prompts(vocabulary: int) -> tuple[tuple[int, ...], ...]:
    """Return fixed prompts of ids spread over the vocabulary."""
    ids = torch.randint(vocabulary, (PROMPTS, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    return tuple(tuple(row) for row in ids.tolist())


@dataclass(frozen=True)
class Proof:
    """What the policy says after each of the fixed prompts.

    Kept until the next sync, so that a server which comes back later, when the trainer has gone on changing
    the module, is held to the same numbers.
    """

    prompts: tuple[tuple[int, ...], ...]
    logprobs: Tensor
    """(prompts, vocabulary) float32 on the CPU."""
    exact: bool
    """Whether the module computes in float32 or better."""

    def difference(self, tokens: Sequence[int], logprobs: Sequence[float]) -> float:
        """Return the mean absolute difference to a server's log-prob of one token after each prompt."""
        own = self.logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        return float((own - torch.tensor(logprobs)).abs().mean())

    def allowed(self, server_dtype: str) -> float:
        """Return the largest difference that rounding explains."""
        return EXACT if self.exact and server_dtype.endswith("float32") else ROUNDED


def make_proof(module: nn.Module, vocabulary: int) -> Proof:
    """Run the policy on the fixed prompts; it is given back as it was."""
    inner = base_module(module)  # a DDP wrapper would wait for other processes
    prompts = probe_prompts(vocabulary)
    parameter = next(inner.parameters())
    with torch.no_grad(), eval_mode(inner):
        logits = inner(input_ids=torch.tensor(prompts, device=parameter.device), use_cache=False).logits[:, -1]
    exact = parameter.dtype in (torch.float32, torch.float64)
    return Proof(prompts, logits.float().log_softmax(-1).cpu(), exact)
