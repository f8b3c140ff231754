"""How policy and critic are asked: one joint forward, in the update with gradients and over a rollout without.

A batch is a dict of TRL: prompts padded on the left, completions on the right, (B, P) and (B, C).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Scored", "by_stream", "joined", "score", "values_of"]


class Scored(NamedTuple):
    """What the joint forward says of the completion tokens."""

    logps: Tensor
    """(B, C)."""
    entropy: Tensor
    """(B, C), without gradients."""
    values: Tensor
    """(B, C, S): the value of the state before each token, one per advantage stream."""


def joined(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Prompt and completion as one batch: ids and attention mask, (B, P + C)."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    return ids, torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)


def score(model: nn.Module, inputs: dict[str, Any]) -> Scored:
    """Policy and critic in one forward of the (wrapped) model."""
    ids, attention = joined(inputs)
    length = inputs["completion_ids"].size(1)
    labels = ids.masked_fill(attention == 0, -100)
    labels[:, :-length] = -100
    output = model(input_ids=ids, attention_mask=attention, labels=labels, fused_lm_head=True, return_values=True)
    values = by_stream(output.state_values)[:, -length - 1 : -1]
    return Scored(output.log_probs[:, -length:], output.entropy[:, -length:], values)


def values_of(critic: nn.Module, inputs: dict[str, Any], rows: int) -> Tensor:
    """Values of a whole rollout, (B, C, S) in float32, `rows` at a time."""
    ids, attention = joined(inputs)
    start = inputs["prompt_ids"].size(1) - 1
    chunks = [critic(ids[i : i + rows], attention[i : i + rows]) for i in range(0, ids.size(0), rows)]
    return by_stream(torch.cat(chunks))[:, start:-1].float()


def by_stream(values: Tensor) -> Tensor:
    """(B, T) or (B, T, S) -> (B, T, S)."""
    return values.unsqueeze(-1) if values.dim() == 2 else values
