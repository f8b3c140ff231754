"""What a server's URL is: the one rule for recipes, the command line and whoever connects."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from rltoolkit.recipe.problems import RefusedError


def server_place(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of a server's URL; raises RefusedError for anything else than these three."""
    expected = "such as http://127.0.0.1:8100"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RefusedError(f"names {url!r} ({error})", expected=expected) from error
    if parts.scheme not in ("http", "https"):
        bare = url.partition("://")[2] or url
        raise RefusedError(f"names {url!r} without http:// or https://", remedy=f"write 'http://{bare}'")
    if not host or port == 0 or parts.username is not None or any(letter.isspace() for letter in url):
        raise RefusedError(f"names {url!r}", expected=expected, remedy="give scheme, host and port")
    if parts.path or parts.query or parts.fragment:
        remedy = f"write '{parts.scheme}://{parts.netloc}'; paths such as /v1 are added where they belong"
        raise RefusedError(f"names {url!r}, which has a path", remedy=remedy)
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


def refused_urls(urls: Iterable[str]) -> list[RefusedError]:
    """What is wrong with each of several servers' URLs: those that are none, and servers that are named again."""
    refused = []
    seen: dict[tuple[str, str, int], str] = {}
    for url in urls:
        try:
            place = server_place(url)
        except RefusedError as refusal:
            refused.append(refusal)
            continue
        if place in seen:
            again = "twice" if seen[place] == url else f"after {seen[place]!r}, which is the same server"
            refused.append(RefusedError(f"names {url!r} {again}", remedy="name each server once"))
        seen.setdefault(place, url)
    return refused


def sentence(refusal: RefusedError) -> str:
    """A refusal as one sentence, without its subject."""
    parts = [refusal.found, f"expected {refusal.expected}" if refusal.expected else ""]
    said = ", ".join(part for part in parts if part)
    return f"{said}; {refusal.remedy}" if refusal.remedy else said
