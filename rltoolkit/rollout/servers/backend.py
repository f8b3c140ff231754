"""A rollout backend on a pool of vLLM servers."""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import nn

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.base import check_request
from rltoolkit.rollout.saved import base_folder
from rltoolkit.rollout.servers.dispatch import Job, PoolTimes, Question, ServerPool
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
    policy_config,
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
    """The whole of one request, waiting on the server included; also of a load of weights."""
    retries: int = 3
    """So often is a request asked again that failed on servers which are up."""
    wait_s: float = 300.0
    """How long all servers may be away."""
    health_timeout_s: float = 30.0
    """A server that does not answer a look in this time is not asked any more."""
    concurrency: int = 64
    """Requests at once on each server."""

    def __post_init__(self) -> None:
        """Check each value by itself."""
        if not self.urls:
            raise RolloutError("ServerOptions.urls is empty; give the URL of at least one server")
        urls = [url.rstrip("/") for url in self.urls]
        if twice := sorted({url for url in urls if urls.count(url) > 1}):
            raise RolloutError(f"ServerOptions.urls has {twice[0]} more than once; give each server once")
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

        `weights_dir` None is a temporary folder of this machine, removed by `close`.
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
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._weights_dir = None if weights_dir is None else Path(weights_dir).absolute()
        self._policy: Policy | None = None
        self._context: int | None = None
        self._name = new_name()
        self._state = "awake"

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
        check_request(prompt_token_ids, n, sampling, seeds, vocabulary=vocabulary, context=self._context)
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
        stay as it is until the next sync. Servers that cannot be reached get the weights when they are back;
        if none can be for `wait_s`, or one is of another kind than the policy needs, RolloutError.
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
        self._context = _least(facts.values())
        name = new_name()
        adapter = adapter_of(source)
        unmerged = adapter is not None and adapter.unmerged and all(_takes(f, adapter.rank) for f in facts.values())
        place = self._place()
        if isinstance(source, nn.Module):
            weights = _written(source, place, name, unmerged=unmerged)
        elif adapter is None:
            weights = Weights.at(source)
        elif unmerged:
            weights = Weights.at(base, adapter=source, base=str(base))
        else:
            weights = _written(_with_adapter(base, source), place, name, unmerged=False)
        proof = make_proof(source, model.vocabulary) if isinstance(source, nn.Module) else None
        shared = SharedPolicy(name, version, model, unmerged)
        policy = OwnedPolicy(shared, weights, proof, self.options.request_timeout_s)
        self._thread.run(self._pool.install(policy))
        self._policy = policy
        _remove_others(place, weights)

    def follow(self, policy: SharedPolicy) -> None:
        """Accept samples of a policy that another process synced, and of no other.

        Waits up to `wait_s` until a server shows it. Nothing is loaded from here.
        """
        self._check_awake()
        self._policy = None
        self._thread.run(self._pool.stop())
        facts = self._thread.run(self._pool.reach(lambda server: contact(server, policy.model)))
        self._context = _least(facts.values())
        followed = FollowedPolicy(policy, self.options.health_timeout_s)
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
        """Stop watching the servers, end the thread, remove temporary weights; the servers go on running."""
        self._state = "closed"
        self._policy = None
        self._thread.close(*(server.client.close for server in self._servers))
        if self._weights_dir is not None:
            _remove_others(self._place(), None)
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

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

    def _place(self) -> Path:
        """Return how the paths of this backend's weights begin."""
        folder = self._weights_dir
        if folder is None:
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="rltoolkit-weights-", ignore_cleanup_errors=True)
            folder = Path(self._temporary.name)
        return folder / f"policy-{self._name}"


def _written(module: nn.Module, place: Path, name: str, *, unmerged: bool) -> Weights:
    """Write a module's weights into a new folder whose path begins with `place`; an unchanged base only once."""
    own = place.with_name(f"{place.name}-{name}")
    if not unmerged:
        write_policy(module, own)
        return Weights.at(own)
    base = place.with_name(f"{place.name}-base-{_base_identity(module)}")
    if not base.is_dir():
        write_policy(module, base, with_adapter=False)
    write_adapter(module, own)
    return Weights.at(base, adapter=own, base=str(base))


def _base_identity(module: nn.Module) -> str:
    """Name the base weights of a PEFT model in this process: another one once a tensor is replaced or written to."""
    parts = [f"{id(module)}"]
    for name, parameter in module.named_parameters():
        if "lora_" not in name:
            parts.append(f"{name} {parameter.data_ptr()} {parameter._version} {parameter.requires_grad}")
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


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


def _remove_others(place: Path, weights: Weights | None) -> None:
    """Remove what this backend wrote, but for `weights`."""
    for old in place.parent.glob(f"{place.name}-*"):
        if weights is None or old not in (weights.folder, weights.adapter):
            shutil.rmtree(old, ignore_errors=True)
