"""A key-value cache that is written in place and loses finished rows cheaply.

transformers' own `DynamicLayer` concatenates at every token, which copies the whole cache and asks the
allocator for new memory each time; for a small model that is most of the time of decoding. Here the
memory is taken once, a token is written into it, and dropping rows moves only as many rows as finished.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

__all__ = ["InPlaceLayer", "make_cache"]

FIRST_TOKENS = 256
"""Columns taken at first beyond the prompt, doubled when used up: few samples reach a high limit."""


class InPlaceLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """Keys and values of one layer, (rows, heads, tokens, head size), as views of memory taken in advance."""

    def __init__(self, most_tokens: int) -> None:
        """`most_tokens` is the length no sequence will pass."""
        super().__init__()
        self.is_initialized: bool = False
        self._most_tokens = most_tokens
        self._memory: tuple[Tensor, Tensor] | None = None
        self._length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens, (rows, heads, new tokens, head size); return all of them."""
        start, stop = self._length, self._length + key_states.shape[-2]
        if self._memory is None or stop > self._memory[0].shape[-2]:
            self._memory = self._grown(key_states, value_states, stop)
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        rows = key_states.shape[0]
        keys, values = (memory[:rows, :, :stop] for memory in self._memory)
        keys[:, :, start:] = key_states
        values[:, :, start:] = value_states
        self._length, self.keys, self.values = stop, keys, values
        return keys, values

    def get_seq_length(self) -> int:
        """Return the number of tokens held."""
        return self._length

    def batch_select_indices(self, indices: Tensor) -> None:
        """Make row j what row `indices[j]` was, for j below len(indices); may also repeat rows."""
        if self._memory is None:
            return
        count = len(indices)
        if count > self._memory[0].shape[0]:
            self._memory = self._repeated(indices)
        else:
            moved = (indices != torch.arange(count, device=indices.device)).nonzero()[:, 0]
            for memory in self._memory:
                live = memory[:, :, : self._length]
                live[moved] = live[indices[moved]]
        self.keys, self.values = (memory[:count, :, : self._length] for memory in self._memory)

    def _grown(self, keys: Tensor, values: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Take memory for `tokens` tokens and some more, with what is held so far at its start."""
        more = FIRST_TOKENS if self._memory is None else tokens
        capacity = max(tokens, min(self._most_tokens, tokens + more))
        grown = []
        for i, states in enumerate((keys, values)):
            memory = states.new_empty(*states.shape[:-2], capacity, states.shape[-1])
            if self._memory is not None:
                memory[:, :, : self._length] = self._memory[i][: states.shape[0], :, : self._length]
            grown.append(memory)
        return grown[0], grown[1]

    def _repeated(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Take memory for more rows than there were, filled with the rows at `indices`."""
        repeated = []
        for memory in self._memory or ():
            target = memory.new_empty(len(indices), *memory.shape[1:])
            target[:, :, : self._length] = memory[indices, :, : self._length]
            repeated.append(target)
        return repeated[0], repeated[1]


def make_cache(model: nn.Module, most_tokens: int) -> Any:
    """Return an empty cache for `model`: in place where a layer attends to everything.

    Layers with a sliding window or a recurrent state keep the layer that transformers chooses for them.
    """
    cache = DynamicCache(config=model.config)
    cache.layers = [InPlaceLayer(most_tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
