"""The servers that a recipe's rollouts ask: who is there, and whether it is what the policy needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rltoolkit.errors import RolloutError
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.paths import is_embedded, resolve_data_path

if TYPE_CHECKING:
    from rltoolkit.rollout.servers.server import ServerFacts

LOOK_S = 10.0
"""For one answer, where the recipe is not more impatient: a check shall not hang on a server that does."""


@dataclass(frozen=True)
class ServersLook:
    """What was seen: a line for each server that serves, why others do not (`away`), and who cannot (`wrong`)."""

    lines: tuple[str, ...]
    away: tuple[str, ...]
    wrong: tuple[str, ...]


def look_at_servers(loaded: LoadedRecipe) -> ServersLook:
    """Ask each server of the recipe what it is, all at once, and load nothing.

    Raises RolloutError or ModelError where the policy's config cannot be read, which servers are compared with.
    """
    section = loaded.recipe.rollout.servers
    found = _ask(section.urls, _policy_config(loaded), min(section.health_timeout_s, LOOK_S))
    lines: list[str] = []
    away: list[str] = []
    wrong: list[str] = []
    for url, facts in found.items():
        if isinstance(facts, tuple):
            (wrong if facts[1] else away).append(facts[0])
            continue
        context = "" if facts.max_model_len is None else f", {facts.max_model_len} tokens of context"
        lines.append(f"{url}: {facts.dtype.removeprefix('torch.')} on {facts.device}{context}")
    return ServersLook(tuple(lines), tuple(away), tuple(wrong))


def _ask(urls: Sequence[str], config: Any, timeout_s: float) -> dict[str, ServerFacts | tuple[str, bool]]:
    """Facts by URL, or what is the matter, and whether that is a server of the wrong kind."""
    from rltoolkit.rollout.servers.http import LoopThread, ServerError
    from rltoolkit.rollout.servers.policy import ModelFacts, contact
    from rltoolkit.rollout.servers.server import Server
    from rltoolkit.rollout.servers.tasks import together

    model = ModelFacts.of(config)
    servers = [Server(url, timeout_s) for url in urls]

    async def one(server: Server) -> ServerFacts | tuple[str, bool]:
        try:
            return await contact(server, model)
        except RolloutError as error:
            return str(error), not isinstance(error, ServerError)

    thread = LoopThread()
    try:
        results = thread.run(together(one(server) for server in servers))
    finally:
        thread.close(*(server.client.close for server in servers))
    return dict(zip(urls, results, strict=True))


def _policy_config(loaded: LoadedRecipe) -> Any:
    place = resolve_data_path(loaded.recipe.model.name_or_path, loaded.path)
    if isinstance(place, str) and is_embedded(place):
        from rltoolkit.embedded.models import countdown_model, countdown_tokenizer

        return countdown_model(0, countdown_tokenizer()).config
    from rltoolkit.rollout.weights import policy_config

    return policy_config(place)
