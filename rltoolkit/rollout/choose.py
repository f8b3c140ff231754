"""From a recipe's rollout section to a sampler: the one place where the phases of a run get theirs."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self

from rltoolkit.recipe.resolve import samples
from rltoolkit.recipe.schema import Recipe, ServersSection
from rltoolkit.rollout.base import RolloutBackend
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.ranks import awake, is_shared, on_main_process
from rltoolkit.rollout.saved import adapter_base, base_folder, local_folder
from rltoolkit.rollout.transformers_backend import TransformersBackend, end_token_ids

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from rltoolkit.rollout.servers.backend import ServerOptions

__all__ = [
    "Rollouts",
    "engine_options",
    "saved_end_token_ids",
    "server_options",
    "sync_saved",
]

WEIGHTS_FOLDER = "rollout"
"""Inside a run's folder: the weights on their way to servers."""


class Rollouts:
    """Gives the phases of one run their samplers; used as a context manager, which closes what it made.

    Backends transformers and trl-vllm sample from the policy's own module, here. Backends vllm and vllm-server have
    one engine, or one client of the servers, for the whole run: whoever samples gives it the weights first.
    """

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        start_model: str,
        folder: Path,
        load: "Callable[[str], nn.Module]",
        is_main: bool = True,
    ) -> None:
        """Make nothing yet: see `open`.

        `start_model` is the folder or hub name of the model that the run starts from, `folder` is the run's, `load`
        loads a saved model to the device of this process. One process, with `is_main`, cleans up.
        """
        self._recipe = recipe
        self._tokenizer = tokenizer
        self._start_model = start_model
        self._folder = folder
        self._load = load
        self._is_main = is_main
        self._shared: RolloutBackend | None = None

    @property
    def samples_here(self) -> bool:
        """Whether the policy's own module samples; if not, one process can ask for all of them."""
        return self._recipe.rollout.backend in ("transformers", "trl-vllm")

    def open(self) -> None:
        """Start the engine, or the client of the servers; nothing for the others. Every process calls it.

        Call it early: an engine that cannot start, a server that is away or serves another model is then known
        before hours of training, and engines of several processes start together. A run that never samples starts
        nothing. Raises RolloutError for what cannot serve, that of servers on every process.
        """
        if self.samples_here or self._shared is not None or not samples(self._recipe):
            return
        eos = saved_end_token_ids(self._start_model, self._tokenizer)
        if self._recipe.rollout.backend == "vllm":
            from rltoolkit.rollout.vllm_backend import VLLMBackend

            model, engine = local_folder(self._start_model), engine_options(self._recipe)
            self._shared = VLLMBackend(model, eos_token_ids=eos, engine=engine, seed=self._recipe.seed)
            self._shared.sleep()
        else:
            from rltoolkit.rollout.servers.backend import VLLMServerBackend

            servers = self._recipe.rollout.servers
            self._clean()
            client = VLLMServerBackend(
                server_options(servers), eos_token_ids=eos, weights_dir=self._weights_dir(servers)
            )
            self._shared = client
            on_main_process("use the servers", lambda: client.look(self._start_model))

    def backend_for(self, policy: "nn.Module") -> RolloutBackend:
        """The backend that a trainer keeps for the policy it trains; the trainer syncs it before every rollout."""
        return self._around(policy) if self.samples_here else self._opened()

    @contextmanager
    def sampler(self, policy: "nn.Module | str | Path", version: int) -> Iterator[RolloutBackend]:
        """A backend that samples from `policy`, a module in memory or a saved folder, until the block ends.

        For one process, usually the main one: the others are neither asked nor needed, and ask nothing meanwhile.
        """
        if self.samples_here:
            policy = self._load(str(policy)) if isinstance(policy, str | Path) else policy
            backend = self._around(policy)
        else:
            backend = self._opened()
        with awake(backend):
            if isinstance(policy, str | Path):
                sync_saved(backend, policy, version)
            else:
                backend.sync(policy, version)
            yield backend

    def close(self) -> None:
        """End what `open` started, and remove the weights that lay in the run's folder; may be called twice."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()
            self._clean()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _around(self, policy: "nn.Module") -> RolloutBackend:
        eos = end_token_ids(policy, self._tokenizer)
        return TransformersBackend(policy, eos_token_ids=eos, pad_token_id=self._tokenizer.pad_token_id)

    def _opened(self) -> RolloutBackend:
        if self._shared is None:
            raise RuntimeError("no sampler is open; call open() on every process first")
        return self._shared

    def _weights_dir(self, servers: ServersSection) -> Path:
        """The recipe's folder, or one in the run's; absolute, since a server has another working directory."""
        if servers.weights_dir is not None:
            return Path(servers.weights_dir).expanduser().absolute()
        return (self._folder / WEIGHTS_FOLDER).absolute()

    def _clean(self) -> None:
        """Remove what this run, or an earlier start that was killed, left in the run's folder."""
        if self._is_main:
            shutil.rmtree(self._folder / WEIGHTS_FOLDER, ignore_errors=True)


def engine_options(recipe: Recipe) -> EngineOptions:
    """The recipe's engine section, completed from its model section."""
    section = recipe.rollout.engine.model_dump()
    section["dtype"] = section["dtype"] or recipe.model.dtype
    lora = recipe.model.lora
    return EngineOptions(**section, lora_rank=None if lora is None else lora.r)


def server_options(section: ServersSection) -> "ServerOptions":
    """How the servers of the recipe are asked."""
    from rltoolkit.rollout.servers.backend import ServerOptions

    return ServerOptions(
        urls=section.urls,
        request_timeout_s=section.request_timeout_s,
        retries=section.retries,
        wait_s=section.wait_s,
        health_timeout_s=section.health_timeout_s,
        concurrency=section.concurrency,
    )


def sync_saved(backend: RolloutBackend, name_or_path: str | Path, version: int) -> None:
    """Give the backend a saved policy; of an adapter, the model it was trained on goes first.

    Without that, an adapter would stand on whatever the sampler had before. Servers take an adapter's base by
    themselves.
    """
    folder = local_folder(name_or_path)
    if adapter_base(folder) is not None and not is_shared(backend):
        backend.sync(base_folder(folder), version)
    backend.sync(folder, version)


def saved_end_token_ids(name_or_path: str | Path, tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """What `end_token_ids` gives for the saved model, without loading its weights."""
    from transformers import AutoConfig, GenerationConfig

    generation: Any
    try:
        generation = GenerationConfig.from_pretrained(str(name_or_path))
    except OSError:  # the model has none of its own: transformers then derives it, too
        generation = GenerationConfig.from_model_config(AutoConfig.from_pretrained(str(name_or_path)))
    return end_token_ids(SimpleNamespace(generation_config=generation), tokenizer)
