"""One vLLM server: what it is, which weights it shows, loading, completions."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers.http import COMPLETIONS, Answer, HttpClient, ServerError, StatusError

__all__ = ["Server", "ServerFacts"]

WORKER_EXTENSION = "PolicyWorker"
"""Class of our extension of vLLM's workers; servers started by `rltoolkit serve` have it."""

RESET_PAUSE_S = 0.1
"""Between attempts to empty the prefix cache, which vLLM refuses while requests run."""

START = "start the server with `rltoolkit serve`"


@dataclass(frozen=True)
class ServerFacts:
    """What a server says about itself."""

    model: str
    """Name to give in requests."""
    dtype: str
    device: str
    logprobs_mode: str
    max_model_len: int | None
    extension: bool
    """Whether its workers have our extension."""
    max_lora_rank: int | None
    """Adapters up to this rank can be loaded; None: none can."""
    adapters: tuple[str, ...] = ()
    """Names of those it has now, whoever loaded them."""


class Server:
    """A server's connection and what the pool knows about it; belongs to one event loop."""

    def __init__(self, url: str, health_timeout_s: float) -> None:
        """Contact nothing yet. Raises RolloutError for a URL that is none."""
        self.client = HttpClient(url)
        self.url = self.client.url
        self.tag: str | None = None
        """What it shows while it has the present policy; None: not to be asked."""
        self.model = ""
        """Name to ask for while it may be asked: the served model's, or the adapter's."""
        self.base: tuple[str, str] | None = None
        """Tag and identity of the base weights below the adapter loaded last."""
        self.tasks: set[asyncio.Task[Any]] = set()
        """Requests running on it."""
        self.served = 0
        self.down = asyncio.Event()
        """Set while it is not to be asked."""
        self.reachable = True
        """Whether it answered when it was last spoken to."""
        self.trouble: RolloutError | None = None
        """Why it was not brought to the present policy the last time; None before that, and once it was."""
        self.answered = 0.0
        """When it last finished a completion of ours, by the monotonic clock."""
        self.said = "not asked yet"
        self.since = time.monotonic()
        self.timeout_s = health_timeout_s
        self._look: asyncio.Task[str] | None = None
        self._next_look: asyncio.Task[str] | None = None

    def mark_up(self, tag: str, model: str) -> None:
        """Have it asked from now on."""
        self.tag, self.model, self.said, self.since = tag, model, "fine", time.monotonic()
        self.reachable, self.trouble = True, None
        self.down.clear()

    def mark_down(self, said: str) -> None:
        """Have it not asked any more, because of what it said, and cancel what runs on it."""
        if self.tag is not None or self.reachable:
            self.since = time.monotonic()
        self.said, self.reachable = said, False
        self.release()

    def release(self) -> None:
        """Have it not asked any more, and cancel what runs on it."""
        self.tag = None
        self.down.set()
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def describe(self) -> str:
        """Say what it said last, and since when, for an error message."""
        return f"{self.url} (for {time.monotonic() - self.since:.0f} s): {self.said}"

    async def call(self, method: str, path: str, body: Any = None, *, timeout_s: float | None = None) -> Any:
        """Return the JSON of a control endpoint; ServerError unless it says 200."""
        answer = await self.client.request(method, path, body, timeout_s=timeout_s or self.timeout_s)
        if answer.status != 200:
            raise StatusError(f"{method} {self.url}{path}: HTTP {answer.status}: {answer.text()}")
        try:
            return answer.json() if answer.body else None
        except ServerError as error:
            raise ServerError(f"{method} {self.url}{path}: {error}") from error

    async def complete(self, body: dict[str, Any], timeout_s: float) -> Answer:
        """Ask for a completion; the answer may have any status."""
        answer = await self.client.request("POST", COMPLETIONS, body, timeout_s=timeout_s)
        self.answered = time.monotonic()
        return answer

    async def check_health(self) -> None:
        """ServerError unless it says that its engine lives."""
        await self.call("GET", "/health")

    async def shown_tag(self) -> str:
        """Return the tag it shows now."""
        info = await self.call("GET", "/weight_info")
        if not isinstance(info, dict) or not isinstance(info.get("weight_version"), str):
            raise ServerError(f"GET {self.url}/weight_info: no weight_version in {str(info)[:200]}")
        return str(info["weight_version"])

    async def fresh_tag(self) -> str:
        """Return the tag of a look that starts after this call; callers that wait at the same time share one."""
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._look_after(self._look))
        return await asyncio.shield(self._next_look)

    async def _look_after(self, running: "asyncio.Task[str] | None") -> str:
        if running is not None:
            await asyncio.wait([running])
        self._look, self._next_look = self._next_look, None  # from here on, who comes needs a later look
        return await self.shown_tag()

    async def set_tag(self, tag: str) -> None:
        """Have it show `tag`."""
        await self.call("POST", "/update_weight_version", {"new_version": tag})

    async def worker(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        """Call a method of every worker; return what the first one returns."""
        body = {"method": method, "kwargs": arguments}
        answer = await self.call("POST", "/collective_rpc", body, timeout_s=timeout_s)
        results = answer.get("results") if isinstance(answer, dict) else None
        return results[0] if isinstance(results, list) and results else None

    async def reset_cache(self) -> None:
        """Empty the prefix cache, which holds keys and values of older weights."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            answer = await self.call("POST", "/reset_prefix_cache")
            if isinstance(answer, dict) and answer.get("success") is True:
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.url} did not empty its prefix cache within {self.timeout_s:g} s: requests of "
                    "somebody else run on it; give each run servers of its own"
                )
            await asyncio.sleep(RESET_PAUSE_S)

    async def load_adapter(self, name: str, folder: str, timeout_s: float) -> None:
        """Load a LoRA adapter under `name`; vLLM answers in words, not in JSON."""
        body = {"lora_name": name, "lora_path": folder}
        answer = await self.client.request("POST", "/v1/load_lora_adapter", body, timeout_s=timeout_s)
        if answer.status == 404 and "error" not in answer.body.decode(errors="replace").lower():
            raise RolloutError(
                f"{self.url} has no endpoint to load adapters; {START}, or with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
            )
        if answer.status != 200:
            raise StatusError(f"{self.url} did not load the adapter {folder}: HTTP {answer.status}: {answer.text()}")

    async def drop_adapter(self, name: str) -> None:
        """Forget an adapter; one that it does not know is no trouble."""
        await self.client.request("POST", "/v1/unload_lora_adapter", {"lora_name": name}, timeout_s=self.timeout_s)

    async def facts(self) -> ServerFacts:
        """Ask what it serves. RolloutError for something that is no vLLM server with control endpoints."""
        models = await self._required("/v1/models", f"it is no vLLM server, or wants a key; {START}")
        info = await self._required(
            "/server_info?config_format=json",
            f"it has no control endpoints, through which weights are loaded; {START}, or with VLLM_SERVER_DEV_MODE=1 "
            "(they are not protected: on loopback or a private network only)",
        )
        try:
            model = next(m for m in models["data"] if m.get("parent") is None)
            config = info["vllm_config"]
            lora = config.get("lora_config")
            return ServerFacts(
                model=str(model["id"]),
                dtype=str(config["model_config"]["dtype"]),
                device=str(config["device_config"]["device"]),
                logprobs_mode=str(config["model_config"]["logprobs_mode"]),
                max_model_len=config["model_config"].get("max_model_len"),
                extension=WORKER_EXTENSION in str(config["parallel_config"].get("worker_extension_cls")),
                max_lora_rank=int(lora["max_lora_rank"]) if lora else None,
                adapters=tuple(str(m["id"]) for m in models["data"] if m.get("parent") is not None),
            )
        except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
            raise ServerError(
                f"{self.url} describes itself in a form not known here ({error!r}); vLLM 0.31 is what was tested"
            ) from error

    async def _required(self, path: str, otherwise: str) -> Any:
        answer = await self.client.request("GET", path, timeout_s=self.timeout_s)
        if answer.status in (401, 403, 404, 405):
            raise RolloutError(f"{self.url} answers HTTP {answer.status} to GET {path}: {otherwise}")
        if answer.status != 200:
            raise ServerError(f"GET {self.url}{path}: HTTP {answer.status}: {answer.text()}")
        try:
            return answer.json()
        except ServerError as error:
            raise ServerError(f"GET {self.url}{path}: {error}") from error
