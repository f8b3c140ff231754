"""Which weights a server shows: tags, loading them, and the argument why no stale sample is accepted.

A server shows one text, its tag, that only clients set; vLLM starts with "default". A load sets
"loading:..." first, then loads, empties the prefix cache, compares numbers, and only then sets
"<policy>:<version>:<load>", where <policy> is random per sync and <load> random per load and server.

A sample is accepted if its server showed the tag T of the present policy in a look that ended before the
request was sent, and shows T again in a look that began after the answer had arrived. T is set once, by one
client, after one load; a restart, or a load by any client of ours, replaces it first, and nothing ever sets
it again. So it stood without interruption from the first look to the second, and the weights in between were
those it was set for. A load whose client gave up waiting may still be done, but before every later one: an engine
takes its orders in turn. Two clients that load the same server at once are told apart because each looks for its
own "loading:..." just before it sets its tag; what remains open is the one round trip between that look and
the tag, and somebody who loads weights by other means without touching the tag.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers.http import ServerError, StatusError
from rltoolkit.rollout.servers.messages import Expected, read_completion
from rltoolkit.rollout.servers.proof import PROBE, Proof, probe_prompts
from rltoolkit.rollout.servers.server import START, Server, ServerFacts
from rltoolkit.rollout.servers.tasks import together
from rltoolkit.rollout.vllm_sampling import completion_request
from rltoolkit.rollout.vllm_worker.rltoolkit_vllm_worker import MODEL_FIELDS, folder_digest

__all__ = [
    "ConflictError",
    "FollowedPolicy",
    "ModelFacts",
    "OwnedPolicy",
    "Policy",
    "RefusalError",
    "SharedPolicy",
    "Weights",
    "contact",
    "new_name",
]

NO_TAG = "default"
"""What vLLM shows after its start."""

MOST_TAKEOVERS = 3
"""So often in one call is a server loaded again after somebody else loaded it; then two runs are fighting."""

LEAST_LOAD_S = 600.0
"""A load may take this long, or as long as a request where that is longer: it reads a whole model."""

FARE_WELL_S = 2.0
"""For servers to forget an adapter, when the backend is closed."""

ADAPTER_NAME = re.compile(r"[0-9a-f]{16}-v\d+-[0-9a-f]{16}")
"""What adapters are called that this module loads."""


@dataclass(frozen=True)
class ModelFacts:
    """What the served model has to be."""

    shape: Mapping[str, Any]
    """Fields of the policy's config, see `MODEL_FIELDS`; None where it has none."""

    @classmethod
    def of(cls, config: Any) -> "ModelFacts":
        """Take them from a transformers config."""
        text = config.get_text_config(decoder=True)
        shape = {name: getattr(text, name, None) for name in MODEL_FIELDS}
        return cls({**shape, "architectures": getattr(config, "architectures", None)})

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self.shape["vocab_size"])

    @property
    def tied(self) -> bool:
        """Whether the output layer is the embedding itself."""
        return bool(self.shape["tie_word_embeddings"])


@dataclass(frozen=True)
class SharedPolicy:
    """What other processes need to take samples of a policy that one of them synced; can be pickled."""

    policy: str
    """Random name of the sync."""
    version: int
    model: ModelFacts
    lora_rank: int | None
    """Of the adapter that servers have beside the base model; None: they have a whole model."""
    context: int | None
    """Tokens that a sequence may have on each of the servers; None when they do not say."""

    @property
    def adapter(self) -> bool:
        """Whether the servers have it as an adapter beside the base model."""
        return self.lora_rank is not None


@dataclass(frozen=True)
class Weights:
    """Folders that servers load a policy from; they stay as they are until the next sync."""

    folder: Path
    """Of the whole model, or of the base model below an adapter."""
    adapter: Path | None
    whole: bool
    """Whether it is known that no weight of its architecture is missing."""
    digest: str
    """Of the weight files in `folder`, as our part of a server's workers has it; empty for files it cannot read."""
    files: tuple[tuple[str, int, int], ...]
    """Name, size and time of every file, to notice a change."""
    base: str
    """Names the content of `folder` below an adapter, so that a server which has it need not load it; else empty."""

    @classmethod
    def at(cls, folder: Path, *, adapter: Path | None = None, whole: bool = True) -> "Weights":
        """Describe folders as they are now."""
        try:
            digest = folder_digest(folder)
        except (ValueError, OSError):
            digest = ""
        base = f"{digest} {_files(folder)}" if adapter else ""
        return cls(folder, adapter, whole, digest, _files(folder, adapter), base)

    def refuse_changed(self) -> None:
        """RolloutError when a file is not what it was: servers would hold different weights under one version."""
        if _files(self.folder, self.adapter) != self.files:
            raise RolloutError(
                f"the files in {self.adapter or self.folder} changed since the sync; leave a checkpoint as it is "
                "while servers sample from it, or sync again"
            )


def _files(*folders: Path | None) -> tuple[tuple[str, int, int], ...]:
    try:
        found = [file for folder in folders if folder is not None for file in sorted(folder.glob("*"))]
        return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in found if file.is_file())
    except OSError as error:
        raise RolloutError(
            f"the policy's files cannot be looked at: {error}; leave its folder as it is while servers sample from it"
        ) from error


class Policy(Protocol):
    """What the pool wants its servers to have."""

    shared: SharedPolicy
    watched_between_calls: bool
    """Whether servers are looked at, and brought back, while nobody asks."""

    def begin_call(self) -> None:
        """Start counting again how often servers were taken over."""
        ...

    async def bring(self, server: Server) -> None:
        """Mark a server up once it shows this policy; ServerError when it does not, RolloutError when it cannot."""
        ...

    async def leave(self, server: Server, model: str) -> None:
        """Have a server forget what nobody but this policy needs, known there as `model`; at the end of the backend."""
        ...


def new_name() -> str:
    """Return a name that nobody else has."""
    return secrets.token_hex(8)


class OwnedPolicy:
    """A policy that this process loads onto servers, and again onto those that lost it."""

    watched_between_calls = True  # other processes, whose calls may last longer, wait for this one to load

    def __init__(self, shared: SharedPolicy, weights: Weights, proof: Proof | None, timeout_s: float) -> None:
        """`timeout_s` bounds a request of one token; `proof` has the numbers that a server must agree with."""
        self.shared = shared
        self._load_s = max(timeout_s, LEAST_LOAD_S)
        self._weights, self._proof, self._timeout_s = weights, proof, timeout_s
        self._tags: dict[str, str] = {}
        self._takeovers: dict[str, int] = {}

    def begin_call(self) -> None:
        """Start counting again how often servers were taken over."""
        self._takeovers.clear()

    async def bring(self, server: Server) -> None:
        """Load the policy, unless the server still shows the tag of our load; mark it up."""
        facts = await _fitting(server, self.shared)
        await server.check_health()
        shown = await server.shown_tag()
        known = self._tags.get(server.url)
        if known is None or shown != known:
            if known is not None and shown != NO_TAG and not shown.startswith(f"loading:{self.shared.policy}:"):
                self._count_takeover(server, shown)
            known = await self._load(server, facts, shown)
            self._tags[server.url] = known
        else:
            difference = await self._difference(server, _model(self.shared, facts, known))
            self._refuse_different(server, facts, difference)
        server.mark_up(known, _model(self.shared, facts, known))

    async def _load(self, server: Server, facts: ServerFacts, shown: str) -> str:
        """Load onto a server and return the tag that it then shows; see the module's text for the order."""
        weights, shared = self._weights, self.shared
        tag = f"{shared.policy}:{shared.version}:{new_name()}"
        weights.refuse_changed()
        await server.set_tag(f"loading:{tag}")
        has_base = bool(weights.base) and server.base == (shown, weights.base)
        server.base = None
        try:
            if not has_base:
                await self._load_base(server, facts)
            await self._load_adapter(server, facts, _model(shared, facts, tag))
        except StatusError as error:
            await server.check_health()  # if it is dying, that is what is the matter
            raise RefusalError(
                f"{error}; the server must see the folder {weights.adapter or weights.folder} under this path, and "
                "serve the model that is trained: its log says more"
            ) from error
        await server.reset_cache()
        weights.refuse_changed()
        difference = await self._difference(server, _model(shared, facts, tag))
        if (now := await server.shown_tag()) != f"loading:{tag}":
            if now == NO_TAG:
                raise ServerError(f"{server.url} was restarted while it loaded the policy")
            self._count_takeover(server, now)
            raise ServerError(f"{server.url} was loaded by somebody else at the same time: it shows {now!r}")
        self._refuse_different(server, facts, difference)
        await server.set_tag(tag)
        server.base = (tag, weights.base) if weights.base else None
        return tag

    async def leave(self, server: Server, model: str) -> None:
        """Drop the policy's adapter, if the server is quick about it."""
        if self.shared.adapter:
            with suppress(ServerError, TimeoutError):
                async with asyncio.timeout(FARE_WELL_S):
                    await server.drop_adapter(model)

    async def _load_base(self, server: Server, facts: ServerFacts) -> None:
        """Load a whole model; where our part of the workers says what it read, that must be what is here."""
        weights = self._weights
        folder = str(weights.folder)
        if not facts.extension:
            if not weights.whole:
                raise RefusalError(
                    f"{server.url} does not say what it loads, and {folder} was not looked through for missing "
                    f"weights; {START}, or sync again"
                )
            await server.worker("reload_weights", self._load_s, weights_path=folder)
            return
        said = await server.worker("rltoolkit_load", self._load_s, weights_path=folder)
        read = said.get("digest") if isinstance(said, dict) else None
        if read != weights.digest:
            raise RolloutError(
                f"{server.url} read other weight files from {folder} than are there on this machine (digest {read}, "
                f"expected {weights.digest}); give a folder that both share, or the same files on both, and {START} of "
                "this version"
            )

    async def _load_adapter(self, server: Server, facts: ServerFacts, name: str) -> None:
        """Load the policy's adapter, if it has one, and drop those that other policies left behind."""
        if self._weights.adapter is not None:
            await server.load_adapter(name, str(self._weights.adapter), self._load_s)
        for old in facts.adapters:
            if ADAPTER_NAME.fullmatch(old):
                await server.drop_adapter(old)

    async def _difference(self, server: Server, model: str) -> float:
        """Have the server sample; return how far its log-probs are from the policy's, 0 where these are not known."""
        vocabulary = self.shared.model.vocabulary
        prompts = self._proof.prompts if self._proof else probe_prompts(vocabulary)[:1]
        asked = (_probe(server, model, prompt, vocabulary, self._timeout_s) for prompt in prompts)
        drawn = await together(asked)
        if self._proof is None:
            return 0.0
        return self._proof.difference([token for token, _ in drawn], [value for _, value in drawn])

    def _refuse_different(self, server: Server, facts: ServerFacts, difference: float) -> None:
        allowed = self._proof.allowed(facts.dtype) if self._proof else 0.0
        if not difference <= allowed:
            raise RolloutError(
                f"{server.url} does not sample from the policy: its log-probs differ by {difference:.3g} on average, "
                f"at most {allowed} was expected ({facts.dtype} there). It serves another model, or the loaded weights "
                f"did not reach all of its layers; {START}, on the model that is trained"
            )

    def _count_takeover(self, server: Server, shown: str) -> None:
        count = self._takeovers[server.url] = self._takeovers.get(server.url, 0) + 1
        if count > MOST_TAKEOVERS:
            raise ConflictError(
                f"another run uses {server.url}: it was loaded by somebody else {count} times during this call and now "
                f"shows {shown!r}; give each run servers of its own"
            )


class ConflictError(RolloutError):
    """Two runs load the same server again and again."""


class RefusalError(ServerError):
    """A server that lives will not take the policy, and will say so again; others may take it."""


class FollowedPolicy:
    """A policy that another process loads; here servers are only looked at, and only while samples are asked for.

    The other process may load the next policy as soon as all have their samples; looks at a server that loads
    would find it wanting, and disturb it.
    """

    watched_between_calls = False

    def __init__(self, shared: SharedPolicy, timeout_s: float) -> None:
        """`timeout_s` bounds a request of one token."""
        self.shared = shared
        self._timeout_s = timeout_s

    def begin_call(self) -> None:
        """Nothing is counted here."""

    async def leave(self, server: Server, model: str) -> None:
        """Leave all as it is: the policy is another process's."""

    async def bring(self, server: Server) -> None:
        """Mark the server up if it shows any load of the policy."""
        facts = await _fitting(server, self.shared)
        await server.check_health()
        shown = await server.shown_tag()
        if not shown.startswith(f"{self.shared.policy}:{self.shared.version}:"):
            raise ServerError(f"it shows {shown!r} and waits for the process that synced to load it")
        model = _model(self.shared, facts, shown)
        vocabulary = self.shared.model.vocabulary
        await _probe(server, model, probe_prompts(vocabulary)[0], vocabulary, self._timeout_s)
        server.mark_up(shown, model)


def _model(shared: SharedPolicy, facts: ServerFacts, tag: str) -> str:
    """Name to ask for: the served model's, or that of the adapter which belongs to the tag."""
    return f"{shared.policy}-v{shared.version}-{tag.rpartition(':')[2]}" if shared.adapter else facts.model


async def _probe(
    server: Server, model: str, prompt: tuple[int, ...], vocabulary: int, timeout_s: float
) -> tuple[int, float]:
    """Return one token after `prompt` and its log-prob."""
    expected = Expected(prompt, 1, 1, (), vocabulary, 0)
    answer = await server.complete(completion_request(model, prompt, PROBE, 1, 0, ()), timeout_s)
    if answer.status != 200:
        raise ServerError(f"{server.url} does not sample: HTTP {answer.status}: {answer.text()}")
    sample = read_completion(answer.json(), expected)[0]
    return sample.token_ids[0], sample.logprobs[0]


async def _fitting(server: Server, shared: SharedPolicy) -> ServerFacts:
    """Ask what a server is; RefusalError where it cannot do what the servers of the sync can."""
    facts = await contact(server, shared.model)
    if shared.lora_rank is not None and shared.lora_rank > (facts.max_lora_rank or 0):
        raise RefusalError(
            f"{server.url} takes adapters up to rank {facts.max_lora_rank or 0}, the policy's has {shared.lora_rank}; "
            "start it as the other servers are, or sync again"
        )
    if shared.context is not None and facts.max_model_len is not None and facts.max_model_len < shared.context:
        raise RefusalError(
            f"{server.url} has max_model_len {facts.max_model_len}, those of the sync had {shared.context}; start "
            "it as the other servers are, or sync again"
        )
    return facts


async def contact(server: Server, model: ModelFacts) -> ServerFacts:
    """Ask what a server is, and refuse it (RolloutError) where it cannot give the policy's samples."""
    facts = await server.facts()
    if facts.logprobs_mode != "processed_logprobs":
        raise RolloutError(
            f"{server.url} gives log-probs in the mode {facts.logprobs_mode}, not of the distribution that it samples "
            f"from; {START}, or with --logprobs-mode processed_logprobs"
        )
    if facts.extension:
        _refuse_other_model(server.url, await server.worker("rltoolkit_model", timeout_s=server.timeout_s), model)
        return facts
    if model.tied and facts.device.startswith("cpu"):
        raise RolloutError(
            f"{server.url} runs on a CPU, where vLLM keeps a stale copy of tied embeddings after a load; {START}, "
            "which mends it, or train a model without tie_word_embeddings"
        )
    await _refuse_other_vocabulary(server, facts, model.vocabulary)
    return facts


def _refuse_other_model(url: str, served: Any, model: ModelFacts) -> None:
    if not isinstance(served, dict):
        raise ServerError(f"{url} does not describe its model: {str(served)[:200]}")
    differing = [
        f"{name} {served[name]} (policy: {wanted})"
        for name, wanted in model.shape.items()
        if wanted is not None and served.get(name) is not None and served[name] != wanted
    ]
    if differing:
        raise RolloutError(f"{url} serves another model: {'; '.join(differing)}; {START} on the model that is trained")


async def _refuse_other_vocabulary(server: Server, facts: ServerFacts, vocabulary: int) -> None:
    """Ask with the last token id, and with one beyond the vocabulary, which the server must refuse.

    Not with the first one beyond: vLLM lets the number of the tokenizer's tokens pass as the id of one.
    """

    bodies = (completion_request(facts.model, (token,), PROBE, 1, 0, ()) for token in (vocabulary - 1, vocabulary + 1))
    last, beyond = await together(server.complete(body, server.timeout_s) for body in bodies)
    for answer in (last, beyond):
        if answer.status not in (200, 400):
            raise ServerError(f"{server.url} does not sample: HTTP {answer.status}: {answer.text()}")
    if last.status == 400 or beyond.status == 200:
        fewer = "fewer" if last.status == 400 else "more"
        raise RolloutError(
            f"{server.url} serves another model: it knows {fewer} token ids than the policy's {vocabulary}; {START} on "
            "the model that is trained"
        )
