"""Rollouts with a transformers model in this process, on CPU or GPU: a decode loop of our own.

Against `model.generate`: rows draw from random streams of their own, the log-probabilities of the drawn
tokens come along, a prompt asked for n samples is read once, and rows that are finished leave the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.base import check_request, stream_seed
from rltoolkit.rollout.batching import plan_batches
from rltoolkit.rollout.kv_cache import make_cache
from rltoolkit.rollout.modes import eval_mode
from rltoolkit.rollout.sampling import draw, uniforms
from rltoolkit.rollout.take_over import WeightTarget
from rltoolkit.rollout.weights import PolicySource
from rltoolkit.types import Sample, SamplingParams, StopReason

__all__ = ["TransformersBackend", "end_token_ids"]

BATCH_TOKENS = 65_536
"""Default budget. At 128 KiB of cache per token (8B parameters, bfloat16) that is 8 GiB."""

DROP_FRACTION = 1 / 16
"""Finished rows leave once they are this fraction of the batch; smaller fractions measured no faster."""


def end_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that end a response: the tokenizer's EOS and those of the model's generation config.

    Chat models often end a turn with another token than the EOS they were pretrained with; both count.
    """
    found = [tokenizer.eos_token_id]
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found += configured if isinstance(configured, list) else [configured]
    ids = tuple(dict.fromkeys(i for i in found if i is not None))
    if not ids:
        raise RolloutError(
            "neither the tokenizer nor the model's generation config names an end-of-sequence token; "
            "set tokenizer.eos_token"
        )
    return ids


@dataclass(frozen=True)
class _Row:
    """One sample to be drawn."""

    request: int
    prompt: tuple[int, ...]
    seed: int


class TransformersBackend:
    """A `RolloutBackend` on a causal language model of transformers (or a PEFT model around one) in memory.

    The model stays the caller's: it is put into eval mode while sampling and given back as it was, and
    nothing is copied, so that after an optimiser step on the same module `sync` only has to give the new
    version. Under DDP or similar, give the unwrapped module.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eos_token_ids: Sequence[int],
        pad_token_id: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        """Prepare to sample from `model`.

        `eos_token_ids` end a sample (see `end_token_ids`); `pad_token_id` fills the left of short
        prompts, where nothing attends to it; `batch_tokens` bounds rows x (prompt + new tokens) that are
        decoded together.
        """
        if not eos_token_ids:
            raise RolloutError("eos_token_ids is empty; give at least one token that ends a sample")
        if batch_tokens < 1:
            raise RolloutError(f"batch_tokens is {batch_tokens}; give at least 1 (default {BATCH_TOKENS})")
        self.model = model
        self.version = 0
        self._weights = WeightTarget(model)
        self._eos = tuple(eos_token_ids)
        self._pad = self._eos[0] if pad_token_id is None else pad_token_id
        self._batch_tokens = batch_tokens
        self._state = "awake"

    def generate(
        self,
        prompt_token_ids: Sequence[Sequence[int]],
        n: int,
        sampling: SamplingParams,
        seeds: Sequence[int],
    ) -> list[list[Sample]]:
        """Draw `n` samples for every prompt; see `RolloutBackend.generate`.

        Samples do not depend on the batch: exactly so in float64; in float32 rounding flips a rare token.
        """
        self._check_awake()
        config = _text_config(self.model)
        check_request(
            prompt_token_ids,
            n,
            sampling,
            seeds,
            vocabulary=getattr(config, "vocab_size", None),
            context=getattr(config, "max_position_embeddings", None),
        )
        rows = [
            _Row(i, tuple(prompt), stream_seed(seed, k))
            for i, (prompt, seed) in enumerate(zip(prompt_token_ids, seeds, strict=True))
            for k in range(n)
        ]
        samples: list[Sample | None] = [None] * len(rows)
        batches = plan_batches([len(row.prompt) for row in rows], sampling.max_new_tokens, self._batch_tokens)
        with torch.no_grad(), eval_mode(self.model):  # inference mode breaks sharded parameters (ZeRO-3)
            for batch in batches:
                drawn = self._decode([rows[i] for i in batch], sampling)
                for i, sample in zip(batch, drawn, strict=True):
                    samples[i] = sample
        done = [sample for sample in samples if sample is not None]
        return [done[i * n : (i + 1) * n] for i in range(len(prompt_token_ids))]

    def sync(self, source: PolicySource, version: int) -> None:
        """Take over the weights of `source` and call them `version`.

        The module that this backend samples from only gets the version. The weights of another one, or of a
        checkpoint folder, are copied into it: adapters are merged where it is a plain model. An adapter
        folder stands on the weights that were there before the last adapter. Raises RolloutError when the
        weights do not fit, and then keeps those it had.
        """
        self._check_awake()
        self._weights.take(source)
        self.version = version

    def sleep(self) -> None:
        """Refuse requests until `wake`; the memory of a request is given back at its end in any case."""
        self._check_awake()
        self._state = "asleep"

    def wake(self) -> None:
        """Accept requests again."""
        if self._state == "asleep":
            self._state = "awake"

    def close(self) -> None:
        """Refuse all further requests; the model stays the caller's."""
        self._state = "closed"

    def __enter__(self) -> Self:
        """Return the backend itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _check_awake(self) -> None:
        if self._state != "awake":
            remedy = "call wake() first" if self._state == "asleep" else "make a new one"
            raise RolloutError(f"the rollout backend is {self._state}; {remedy}")

    def _decode(self, rows: Sequence[_Row], sampling: SamplingParams) -> list[Sample]:
        """Draw one sample for each of `rows`, all in one batch."""
        device = next(self.model.parameters()).device
        batch = _Batch(self.model, [row.prompt for row in rows], sampling.max_new_tokens, self._pad, device)
        eos = torch.tensor(self._eos, device=device)
        streams = None
        if not sampling.greedy:
            streams = uniforms([row.seed for row in rows], sampling.max_new_tokens).to(device)
        shape = (len(rows), sampling.max_new_tokens)
        tokens = torch.full(shape, self._eos[0], dtype=torch.long, device=device)
        logprobs = torch.zeros(shape, dtype=torch.float32, device=device)
        for step in range(sampling.max_new_tokens):
            u = None if streams is None else streams[batch.rows, step]
            drawn = draw(batch.logits, sampling, u)
            tokens[batch.rows, step] = drawn.tokens
            logprobs[batch.rows, step] = drawn.logprobs.float()
            batch.finished |= torch.isin(drawn.tokens, eos)
            last = step + 1 == sampling.max_new_tokens
            if last or not batch.advance(drawn.tokens):
                break
        return _samples(tokens, logprobs, eos, self.version)


class _Batch:
    """The rows still being decoded: the logits of their next tokens, and what the model needs to go on."""

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[tuple[int, ...]],
        new_tokens: int,
        pad: int,
        device: torch.device,
    ) -> None:
        """Read the prompts, each distinct one once."""
        distinct = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        width = max(map(len, distinct))
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in distinct], device=device)
        pads = torch.tensor([width - len(p) for p in distinct], device=device)
        places = torch.arange(width + new_tokens, device=device)
        mask = (places[None, :] >= pads[:, None]).long()
        self._model = model
        self._length = width
        self._mask = mask if bool(pads.any()) else None  # without padding the mask is not needed, and costs time
        self._cache = make_cache(model, width + new_tokens)
        self._position = (places[None, :width] - pads[:, None]).clamp_(min=0)
        self.logits = self._forward(ids)
        """(B, V) of the next token."""
        self.rows = torch.arange(len(prompts), device=device)
        """(B,) which of the rows asked for each row of the batch is."""
        self.finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        """(B,) rows that have drawn an end-of-sequence token."""
        self._position = self._position[:, -1:]
        if len(distinct) < len(prompts):
            of_prompt = torch.tensor([distinct[p] for p in prompts], device=device)
            self.logits = self.logits[of_prompt]
            self._keep(of_prompt)

    def advance(self, tokens: Tensor) -> bool:
        """Feed the tokens drawn, (B,), dropping finished rows if they are many; False if none is left."""
        done = int(self.finished.sum())
        if done == len(tokens):
            return False
        if done >= max(1.0, DROP_FRACTION * len(tokens)):
            order = _fill_holes(self.finished)
            tokens, self.rows, self.finished = tokens[order], self.rows[order], self.finished[order]
            self._keep(order)
        self._length += 1
        self._position = self._position + 1
        self.logits = self._forward(tokens[:, None])
        return True

    def _keep(self, order: Tensor) -> None:
        self._cache.batch_select_indices(order)
        self._position = self._position[order]
        if self._mask is not None:
            self._mask = self._mask[order]

    def _forward(self, ids: Tensor) -> Tensor:
        """Feed ids (B, T); return the logits (B, V) after the last of them."""
        output = self._model(
            input_ids=ids,
            attention_mask=None if self._mask is None else self._mask[:, : self._length],
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


def _fill_holes(finished: Tensor) -> Tensor:
    """Return indices of the unfinished rows, as many as possible in their place; (B,) bool -> (kept,).

    The last unfinished rows fill the holes, so that the cache moves only those.
    """
    kept = (~finished).nonzero()[:, 0]
    order = torch.arange(len(kept), device=finished.device)
    order[finished[: len(kept)]] = kept[kept >= len(kept)]
    return order


def _samples(tokens: Tensor, logprobs: Tensor, eos: Tensor, version: int) -> list[Sample]:
    """Cut each row after its first end-of-sequence token; (B, T) both."""
    ends = torch.isin(tokens, eos)
    stopped = ends.any(1)
    lengths = torch.where(stopped, ends.int().argmax(1) + 1, tokens.shape[1])
    if bool(logprobs.isnan().any()):
        raise RolloutError("the model's logits are not numbers (NaN); check its weights and its dtype")
    width = int(lengths.max())
    columns = (tokens[:, :width].tolist(), logprobs[:, :width].tolist(), lengths.tolist(), stopped.tolist())
    return [
        Sample(tuple(ids[:end]), tuple(lps[:end]), StopReason.STOP if stop else StopReason.LENGTH, version)
        for ids, lps, end, stop in zip(*columns, strict=True)
    ]


def _text_config(model: nn.Module) -> Any:
    config: Any = model.config
    return config.get_text_config(decoder=True)
