"""The interface of every rollout backend, the seeds of its random streams, and the check of a request.

Trainers, pair generation and evaluation ask a `RolloutBackend` and do not know which one they have.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rltoolkit.errors import RolloutError
from rltoolkit.types import Sample, SamplingParams

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RolloutBackend", "check_request", "request_seed", "stream_seed"]


class RolloutBackend(Protocol):
    """Draws samples from a policy: token ids in, token ids out.

    Life cycle: `sync` first, and again after the policy's weights changed, then `generate` at any time until
    `close`, except between `sleep` and `wake`. A backend that begins with weights of its own (a module in
    memory, the folder that an engine was started on) may sample from them before the first `sync`, as
    version 0; servers, which may hold anybody's weights, refuse.
    """

    def generate(
        self,
        prompt_token_ids: Sequence[Sequence[int]],
        n: int,
        sampling: SamplingParams,
        seeds: Sequence[int],
    ) -> list[list[Sample]]:
        """Draw `n` samples for every prompt; `seeds` has one seed per prompt.

        Sample k of prompt i draws from a random stream of its own, a function of (seeds[i], k) alone: it
        depends neither on the other prompts of the call nor on how they are batched. Returns the samples in
        the order of the prompts. Raises RolloutError for a request that cannot be answered.
        """
        ...

    def sync(self, source: "nn.Module | str | Path", version: int) -> None:
        """Take over the weights of `source` and call them `version`.

        `source` is a module in memory (with an adapter, too), the folder of a whole model, or the folder of a
        LoRA adapter. An adapter stands on the whole model that was last taken over, or began with; servers
        take the base that the adapter's own config names. Samples that are asked for afterwards are of these
        weights. Raises RolloutError when they do not fit.
        """
        ...

    def sleep(self) -> None:
        """Give device memory back while the trainer needs it; a backend that holds none does nothing."""
        ...

    def wake(self) -> None:
        """Undo `sleep`."""
        ...

    def close(self) -> None:
        """Release everything; may be called twice."""
        ...

    def __enter__(self) -> Self:
        """Use the backend in a `with` block, which closes it."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...


def request_seed(run_seed: int, version: int, prompt_ids: Sequence[int], index: int) -> int:
    """Seed of one request, in [0, 2**63): the same after a restart, another one for any other argument.

    `version` is that of the policy, `index` tells requests with equal prompts apart (the row's place in
    the data).
    """
    text = f"{run_seed}/{version}/{index}/" + ",".join(map(str, prompt_ids))
    return _hash63(text)


def stream_seed(seed: int, k: int) -> int:
    """Seed of the random stream of sample `k` of a request with `seed`, in [0, 2**63)."""
    return _hash63(f"{seed}#{k}")


def _hash63(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def check_request(
    prompt_token_ids: Sequence[Sequence[int]],
    n: int,
    sampling: SamplingParams,
    seeds: Sequence[int],
    *,
    vocabulary: int | None,
    context: int | None,
) -> None:
    """Raise RolloutError for a request that no backend can answer.

    `vocabulary` is the number of token ids, `context` the most tokens a sequence may have; None when unknown.
    """
    if n < 1:
        raise RolloutError(f"n is {n}; ask for at least 1 sample per prompt")
    if len(seeds) != len(prompt_token_ids):
        raise RolloutError(f"{len(seeds)} seeds for {len(prompt_token_ids)} prompts; give one seed per prompt")
    for i, prompt in enumerate(prompt_token_ids):
        if len(prompt) == 0:
            raise RolloutError(f"prompt {i} has no tokens; a policy needs at least one (for instance BOS) to start")
        if context is not None and len(prompt) + sampling.max_new_tokens > context:
            raise RolloutError(
                f"prompt {i} has {len(prompt)} tokens, max_new_tokens is {sampling.max_new_tokens}: together "
                f"more than the model's context of {context}; shorten the prompt or lower max_new_tokens"
            )
        if vocabulary is not None and not 0 <= min(prompt) <= max(prompt) < vocabulary:
            raise RolloutError(
                f"prompt {i} has token ids from {min(prompt)} to {max(prompt)}, the model knows 0 to "
                f"{vocabulary - 1}; encode prompts with the tokenizer that belongs to the model"
            )
