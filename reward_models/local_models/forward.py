"""Forward passes over token rows: batches by length, padding on the right, one result per row in order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reward_models.errors import VerifierError


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows padded on the right: ids (B, T), mask (B, T) with 1 where a token counts, last (B,) last real positions.

    On the right whatever the tokenizer says: positions then start at 0 for each row, so that a row has the same
    result alone and in any batch, with absolute position embeddings too.
    """

    ids: Tensor
    mask: Tensor
    last: Tensor


def row_results(
    rows: Sequence[tuple[int, ...]],
    compute: Callable[[TokenBatch], Tensor],
    *,
    model: torch.nn.Module,
    pad_id: int,
    batch_size: int,
) -> list[float]:
    """Run `compute` over all rows, equal rows once, and return one number per row in the order given.

    `compute` maps a batch to (B,). The model is switched to evaluation, without gradients, and back again.
    """
    if batch_size < 1:
        raise VerifierError(f"batch_size is {batch_size}; give a number of rows, at least 1")
    distinct = sorted(dict.fromkeys(rows), key=len, reverse=True)  # longest first: memory runs out at once or never
    device = next(model.parameters()).device
    results: dict[tuple[int, ...], float] = {}
    with evaluating(model):
        for start in range(0, len(distinct), batch_size):
            part = distinct[start : start + batch_size]
            numbers = compute(token_batch(part, pad_id, device)).float().tolist()
            results.update(zip(part, numbers, strict=True))
    return [results[row] for row in rows]


def token_batch(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device | str = "cpu") -> TokenBatch:
    """Pad rows on the right."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask = (torch.arange(width)[None, :] < lengths[:, None]).long()
    return TokenBatch(ids.to(device), mask.to(device), (lengths - 1).to(device))


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; the modules' own modes are restored after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():  # not inference mode: buffers that a forward renews must stay usable in training
            yield
    finally:
        for module, training in modes:
            module.training = training


def last_logits(model: Any, batch: TokenBatch) -> Tensor:
    """Return the next-token logits (B, V) after the last real token of each row, in float32.

    Where the model allows it, logits are made only for positions at which some row ends: all of them would be
    B x T x V numbers.
    """
    rows = torch.arange(len(batch.ids), device=batch.ids.device)
    if not _takes(model, "logits_to_keep"):
        logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
        return logits[rows, batch.last].float()  # type: ignore[no-any-return]
    ends, which = torch.unique(batch.last, return_inverse=True)
    logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, logits_to_keep=ends).logits
    return logits[rows, which].float()  # type: ignore[no-any-return]


def classifier_logits(model: Any, batch: TokenBatch) -> Tensor:
    """Return the logits (B, labels) of a sequence classification model, in float32."""
    options = {"use_cache": False} if _takes(model, "use_cache") else {}
    logits: Tensor = model(input_ids=batch.ids, attention_mask=batch.mask, **options).logits
    return logits.float()


def _takes(model: Any, argument: str) -> bool:
    """Whether the forward of a model has this argument; a PEFT wrapper's own signature says nothing."""
    return argument in inspect.signature(unwrapped(model).forward).parameters


def unwrapped(model: Any) -> Any:
    """Return the model inside a PEFT wrapper, with its adapters in place; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
