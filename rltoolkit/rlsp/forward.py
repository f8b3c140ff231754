"""How policy and critic are asked: one joint forward, in the update with gradients and over a rollout without.

A batch is a dict of TRL: prompts padded on the left, completions on the right, (B, P) and (B, C). Models read it moved
to the left, so that it is as wide as its longest row and not as its longest prompt and its longest completion together;
answers come back in the places of the completions.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.kernels.chunked_logprob import _use_triton

__all__ = [
    "Scored",
    "adapters_off",
    "by_stream",
    "in_parts",
    "logps_of",
    "row_lengths",
    "rows_of",
    "score",
    "score_labelled_only",
    "values_of",
]


class Scored(NamedTuple):
    """What the joint forward says of the completion tokens; zero where there is none."""

    logps: Tensor
    """(B, C)."""
    entropy: Tensor
    """(B, C), without gradients."""
    values: Tensor
    """(B, C, S): the value of the state before each token, one per advantage stream."""


class _LeftAligned(NamedTuple):
    ids: Tensor
    attention: Tensor
    labels: Tensor
    """(B, T): the completion's tokens in their places, -100 elsewhere."""
    before: Tensor
    """(B, C): where in T the position stands that predicts each completion token."""


def row_lengths(inputs: dict[str, Any]) -> list[int]:
    """Tokens of each row, prompt and completion."""
    lengths: list[int] = (inputs["prompt_mask"].sum(1) + inputs["completion_mask"].sum(1)).tolist()
    return lengths


def rows_of(inputs: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """These rows of a batch, as wide as their longest completion."""
    count, width = inputs["completion_mask"].shape
    chosen = torch.tensor(rows, device=inputs["completion_mask"].device)
    widest = int(inputs["completion_mask"][chosen].sum(1).max())
    part: dict[str, Any] = {}
    for name, value in inputs.items():
        if not isinstance(value, Tensor) or value.dim() == 0 or value.size(0) != count:
            part[name] = value
            continue
        part[name] = value[chosen]
        if value.dim() > 1 and value.size(1) == width and not name.startswith("prompt_"):
            part[name] = part[name][:, : max(1, widest)]
    return part


def score(model: nn.Module, inputs: dict[str, Any]) -> Scored:
    """Policy and critic in one forward of the (wrapped) model."""
    batch, mask = _left_aligned(inputs), inputs["completion_mask"]
    output = model(
        input_ids=batch.ids,
        attention_mask=batch.attention,
        labels=batch.labels,
        fused_lm_head=True,
        return_values=True,
    )
    return Scored(
        _by_token(output.log_probs, batch, mask),
        _by_token(output.entropy, batch, mask),
        _values_by_token(output.state_values, batch, mask),
    )


def logps_of(model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor]:
    """Log-probs (B, C) alone, of a model that need not have a critic."""
    batch = _left_aligned(inputs)
    output = model(input_ids=batch.ids, attention_mask=batch.attention, labels=batch.labels, fused_lm_head=True)
    return (_by_token(output.log_probs, batch, inputs["completion_mask"]),)


def values_of(critic: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor]:
    """Values (B, C, S) alone, in float32."""
    batch = _left_aligned(inputs)
    values = critic(batch.ids, batch.attention)
    return (_values_by_token(values, batch, inputs["completion_mask"]).float(),)


def in_parts(
    ask: Callable[[nn.Module, dict[str, Any]], tuple[Tensor, ...]],
    model: nn.Module,
    inputs: dict[str, Any],
    batches: Sequence[Sequence[int]],
) -> tuple[Tensor, ...]:
    """Ask for a whole rollout, some rows at a time; answers (B, C, ...) are in the order of `inputs`."""
    answers = [ask(model, rows_of(inputs, rows)) for rows in batches]
    back = torch.tensor([row for rows in batches for row in rows], device=inputs["completion_mask"].device).argsort()
    width = inputs["completion_mask"].size(1)
    columns = zip(*answers, strict=True)
    return tuple(torch.cat([_widened(part, width) for part in parts])[back] for parts in columns)


def score_labelled_only(base: PreTrainedModel) -> None:
    """Let TRL's fused head, which `base` must already have, project only the positions whose next token is labelled.

    TRL does so where there is Triton. Elsewhere it projects every position, prompts and padding included.
    """
    whole_forward = base.forward

    @functools.wraps(type(base).forward)
    def forward(self: PreTrainedModel, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if labels is None or not kwargs.get("fused_lm_head") or _use_triton(labels.device):
            if labels is not None:
                kwargs["labels"] = labels
            return whole_forward(*args, **kwargs)
        labelled = labels[:, 1:] != -100
        with _only(self.base_model, labelled):
            output = whole_forward(*args, shift_labels=labels[:, 1:][labelled].unsqueeze(0), **kwargs)
        for name in _PER_TOKEN:
            value = output.get(name)
            if value is not None:
                output[name] = value.new_zeros(labelled.shape).masked_scatter(labelled, value)
        return output

    base.forward = MethodType(forward, base)


_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask")


@contextmanager
def _only(backbone: nn.Module, labelled: Tensor) -> Iterator[None]:
    """While open, the backbone hands on its hidden states at these positions alone, as one row."""

    def select(_module: nn.Module, _args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, :-1][labelled].unsqueeze(0)
        return output

    handle = backbone.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()


def adapters_off(model: nn.Module) -> bool:
    """Whether a PEFT model answers as its base at the moment."""
    layers = (module for module in model.modules() if isinstance(module, BaseTunerLayer))
    return any(layer.disable_adapters for layer in layers)


def _left_aligned(inputs: dict[str, Any]) -> _LeftAligned:
    prompt, completion = inputs["prompt_mask"].sum(1, keepdim=True), inputs["completion_mask"].sum(1, keepdim=True)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    length = (prompt + completion).clamp(min=1)
    places = torch.arange(int(length.max()), device=ids.device)
    ids = ids.gather(1, (inputs["prompt_ids"].size(1) - prompt + places).clamp(max=ids.size(1) - 1))
    attention = (places < length).to(inputs["prompt_mask"].dtype)
    labels = torch.where((places >= prompt) & (places < length), ids, -100)
    tokens = torch.arange(inputs["completion_ids"].size(1), device=ids.device)
    before = (prompt - 1 + tokens).clamp(min=0, max=max(0, len(places) - 2))
    return _LeftAligned(ids, attention, labels, before)


def _by_token(at_position: Tensor, batch: _LeftAligned, mask: Tensor) -> Tensor:
    """(B, T - 1) -> (B, C)."""
    if at_position.size(1) == 0:  # rows of one token
        return at_position.new_zeros(mask.shape)
    return at_position.gather(1, batch.before) * mask.to(at_position.dtype)


def _values_by_token(values: Tensor, batch: _LeftAligned, mask: Tensor) -> Tensor:
    """(B, T) or (B, T, S) -> (B, C, S)."""
    values = by_stream(values)
    chosen = values.gather(1, batch.before.unsqueeze(-1).expand(-1, -1, values.size(-1)))
    return chosen * mask.unsqueeze(-1).to(values.dtype)


def _widened(part: Tensor, width: int) -> Tensor:
    """Zeros on the right of dimension 1."""
    missing = width - part.size(1)
    return torch.cat([part, part.new_zeros(part.size(0), missing, *part.shape[2:])], dim=1)


def by_stream(values: Tensor) -> Tensor:
    """(B, T) or (B, T, S) -> (B, T, S)."""
    return values.unsqueeze(-1) if values.dim() == 2 else values
