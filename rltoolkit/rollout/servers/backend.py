"""A rollout backend on a pool of vLLM servers."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from rltoolkit.errors import RolloutError
from rltoolkit.recipe.addresses import refused_urls, sentence
from rltoolkit.rollout.base import check_request
from rltoolkit.rollout.saved import base_folder
from rltoolkit.rollout.servers.dispatch import Job, PoolTimes, Question, ServerPool
from rltoolkit.rollout.servers.folders import WeightsFolder
from rltoolkit.rollout.servers.http import LoopThread
from rltoolkit.rollout.servers.policy import (
    FollowedPolicy,
    ModelFacts,
    OwnedPolicy,
    Policy,
    SharedPolicy,
    Weights,
    contact,
    new_name,
)
from rltoolkit.rollout.servers.proof import make_proof
from rltoolkit.rollout.servers.server import Server, ServerFacts
from rltoolkit.rollout.vllm_sampling import sampling_fields
from rltoolkit.rollout.weights import (
    FolderKind,
    adapter_of,
    folder_kind,
    load_policy,
    memory_state,
    policy_config,
    refuse_partial,
    state_fingerprint,
    trained_below_adapter,
    write_adapter,
    write_policy,
)
from rltoolkit.types import Sample, SamplingParams

__all__ = ["ServerOptions", "VLLMServerBackend"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerOptions:
    """Where the servers are, and how patient to be with them. Raises RolloutError for values that cannot work."""

    urls: tuple[str, ...]
    """Such as http://127.0.0.1:8100."""
    request_timeout_s: float = 600.0
    """The whole of one request, waiting on the server included."""
    retries: int = 3
    """So often is a request asked again that failed on servers which are up."""
    wait_s: float = 300.0
    """How long all servers may be away."""
    health_timeout_s: float = 30.0
    """A server that does not answer a look in this time is not asked any more; a sync waits as long for the others
    once one server has the policy."""
    concurrency: int = 256
    """Requests at once on each server; vLLM queues what it cannot run."""

    def __post_init__(self) -> None:
        """Check each value by itself."""
        if not self.urls:
            raise RolloutError("ServerOptions.urls is empty; give the URL of at least one server")
        if refused := refused_urls(url.rstrip("/") for url in self.urls):
            raise RolloutError(f"ServerOptions.urls {'; '.join(map(sentence, refused))}")
        for name, least in (("request_timeout_s", 0), ("wait_s", 0), ("health_timeout_s", 0), ("concurrency", 1)):
            value = getattr(self, name)
            if not (value >= least and (value > 0 or name == "wait_s")):
                raise RolloutError(f"ServerOptions.{name} is {value}; give a number > 0")
        if self.retries < 0:
            raise RolloutError(f"ServerOptions.retries is {self.retries}; give 0 or more")


class VLLMServerBackend:
    """A `RolloutBackend` on vLLM servers over HTTP; needs no vllm package here.

    Servers started by `rltoolkit serve` have all it needs. Weights travel through a folder that the servers
    see under the same path. Servers that die, hang or come back are handled without the caller; why no sample
    of older weights is accepted is said in `rltoolkit.rollout.servers.policy`.
    """

    def __init__(
        self, options: ServerOptions, *, eos_token_ids: Sequence[int], weights_dir: str | Path | None = None
    ) -> None:
        """Contact nobody yet: `sync` does.

        Weights that are written go into a new folder in `weights_dir`, None: of this machine's temporary files,
        which `close` removes; those of processes that were killed are removed from `weights_dir` at the next sync.
        """
        if not eos_token_ids:
            raise RolloutError("eos_token_ids is empty; give at least one token that ends a sample")
        self.options = options
        self._eos = tuple(eos_token_ids)
        self._servers = [Server(url, options.health_timeout_s) for url in options.urls]
        self._pool = ServerPool(
            self._servers,
            PoolTimes(
                options.request_timeout_s,
                options.health_timeout_s,
                options.wait_s,
                options.retries,
                options.concurrency,
            ),
        )
        self._thread = LoopThread()
        self._weights_dir = None if weights_dir is None else Path(weights_dir).absolute()
        self._folder: WeightsFolder | None = None
        self._policy: Policy | None = None
        self._state = "awake"
        self._process = os.getpid()

    @property
    def version(self) -> int:
        """Version of the policy synced last; 0 before."""
        return 0 if self._policy is None else self._policy.shared.version

    @property
    def shared_policy(self) -> SharedPolicy | None:
        """What other processes need to `follow` the policy synced last; None before the first sync."""
        return None if self._policy is None else self._policy.shared

    def generate(
        self,
        prompt_token_ids: Sequence[Sequence[int]],
        n: int,
        sampling: SamplingParams,
        seeds: Sequence[int],
    ) -> list[list[Sample]]:
        """Draw `n` samples for every prompt; see `RolloutBackend.generate`.

        Waits up to `wait_s` while no server is up. vLLM's kernels depend on the batch, so that a sample is a
        function of its seed only up to rounding.
        """
        self._check_awake()
        if self._policy is None:
            raise RolloutError("the servers have no policy yet; call sync(source, version) first")
        shared = self._policy.shared
        vocabulary = shared.model.vocabulary
        check_request(prompt_token_ids, n, sampling, seeds, vocabulary=vocabulary, context=shared.context)
        sampling_fields(sampling, n, 0, self._eos)  # refuses before anything is asked
        question = Question(n, sampling, self._eos, vocabulary, shared.version)
        pairs = zip(prompt_token_ids, seeds, strict=True)
        # As plain integers: those of numpy and torch have no JSON.
        jobs = [Job(i, tuple(map(int, prompt)), int(seed)) for i, (prompt, seed) in enumerate(pairs)]
        return self._thread.run(self._pool.ask(jobs, question))

    def look(self, source: str | Path) -> None:
        """Look at every server before anything is loaded: who is away, or serves another kind than `source` needs.

        `source` is a saved model, by folder or hub name. Waits up to `wait_s` while no server can be reached, then
        RolloutError; one that cannot be reached while another can is only told.
        """
        self._check_awake()
        place = Path(source)
        model = ModelFacts.of(policy_config(base_folder(place.absolute()) if place.is_dir() else source))
        found = self._thread.run(self._pool.reach(lambda server: contact(server, model)))
        for server in self._servers:
            if server.url not in found:
                logger.warning("not there yet: %s", server.describe())

    def sync(self, source: nn.Module | str | Path, version: int) -> None:
        """Load the weights of `source` on every server that can be reached, and call them `version`.

        `source` is a module in memory (also PEFT), a model folder, or a LoRA adapter's folder. A folder must
        stay as it is until the next sync. Servers that cannot be reached, or do not load the weights while others
        do, get them when they are back; if none can be for `wait_s`, or one is of another kind than the policy
        needs, RolloutError.

        A server with our part in its workers tells a digest of the files that it read, which must be that of the
        files here; a module is held against the server's numbers, too. Not proved: that a server without our part
        read the same files from a folder given here, where only their completeness is checked, on this machine;
        and the content of an adapter's folder.
        """
        self._check_awake()
        if not isinstance(source, nn.Module):
            source = Path(source).absolute()
            base = base_folder(source) if folder_kind(source) is FolderKind.ADAPTER else source
        config = policy_config(source if isinstance(source, nn.Module) else base)
        model = ModelFacts.of(config)
        self._policy = None
        self._thread.run(self._pool.stop())
        facts = self._thread.run(self._pool.reach(lambda server: contact(server, model)))
        adapter = adapter_of(source)
        unmerged = adapter is not None and adapter.unmerged and all(_takes(f, adapter.rank) for f in facts.values())
        if isinstance(source, nn.Module):
            unmerged = unmerged and trained_below_adapter(source) is None
            weights = self._written(source, facts.values(), unmerged=unmerged)
        elif adapter is None or unmerged:
            says = all(f.extension for f in facts.values())
            if not says:
                refuse_partial(base)
            weights = Weights.at(base, adapter=None if adapter is None else source, whole=not says)
        else:
            weights = self._written(_with_adapter(base, source), facts.values(), unmerged=False)
        proof = make_proof(source, model.vocabulary) if isinstance(source, nn.Module) else None
        rank = adapter.rank if adapter is not None and unmerged else None
        shared = SharedPolicy(new_name(), version, model, rank, _least(facts.values()))
        policy = OwnedPolicy(shared, weights, proof, self.options.request_timeout_s)
        self._thread.run(self._pool.install(policy))
        self._policy = policy
        if self._folder is not None:
            self._folder.keep_only(weights.folder, weights.adapter)

    def follow(self, policy: SharedPolicy) -> None:
        """Accept samples of a policy that another process synced, and of no other.

        Waits up to `wait_s` until a server shows it. Nothing is loaded from here.
        """
        self._check_awake()
        self._policy = None
        followed = FollowedPolicy(policy, self.options.request_timeout_s)
        for server in self._servers:
            server.reachable = True  # what it was like under the policy before says nothing
        self._thread.run(self._pool.install(followed))
        self._policy = followed

    def sleep(self) -> None:
        """Refuse requests until `wake`; the servers' memory is on other devices and stays as it is."""
        self._check_awake()
        self._state = "asleep"

    def wake(self) -> None:
        """Accept requests again."""
        if self._state == "asleep":
            self._state = "awake"

    def close(self) -> None:
        """Stop watching the servers, end the thread, remove weights; the servers go on running.

        In a fork of the process that made the backend it only ends the use of it there.
        """
        policy, self._policy, self._state = self._policy, None, "closed"
        if os.getpid() != self._process:
            return
        try:
            if policy is not None:
                self._thread.run(self._pool.leave())
        finally:
            self._thread.close(*(server.client.close for server in self._servers))
            if self._folder is not None:
                self._folder.close()
                self._folder = None

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

    def _written(self, module: nn.Module, servers: Iterable[ServerFacts], *, unmerged: bool) -> Weights:
        """Write a module's weights into a new folder; those below an adapter only when they are not there yet."""
        if self._folder is None:
            self._folder = WeightsFolder(self._weights_dir)
        dtype = _common_dtype(servers)
        own = self._folder.path / new_name()
        if not unmerged:
            write_policy(module, own, dtype=dtype)
            return Weights.at(own)
        below = state_fingerprint(memory_state(module, with_adapter=False))
        base = self._folder.path / f"base-{below}-{dtype}"
        if not base.is_dir():
            write_policy(module, base, dtype=dtype, with_adapter=False)
        write_adapter(module, own)
        return Weights.at(base, adapter=own)


def _common_dtype(servers: Iterable[ServerFacts]) -> torch.dtype | None:
    """Return the narrow dtype that all servers compute in, in which weights need half the room; else None."""
    names = {facts.dtype.removeprefix("torch.") for facts in servers}
    return getattr(torch, names.pop()) if names in ({"bfloat16"}, {"float16"}) else None


def _with_adapter(base: Path, adapter: Path) -> nn.Module:
    """Load a base model on the CPU with an adapter on it."""
    from peft import PeftModel

    try:
        module: nn.Module = PeftModel.from_pretrained(load_policy(base), str(adapter))
    except (OSError, ValueError, RuntimeError) as error:
        raise RolloutError(f"the adapter {adapter} does not fit its base model {base}: {error}") from error
    return module


def _takes(facts: ServerFacts, rank: int) -> bool:
    return facts.max_lora_rank is not None and rank <= facts.max_lora_rank


def _least(facts: Any) -> int | None:
    """Return the shortest context of the servers."""
    return min((f.max_model_len for f in facts if f.max_model_len is not None), default=None)
