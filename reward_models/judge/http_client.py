"""The HTTP under OpenAI's client, for servers that may send anything. Loads openai: import it late."""

from __future__ import annotations

from typing import Any

import openai

# A chat completion takes some thousand bytes. What is longer is cut, which leaves no JSON, or JSON and white space.
MAX_BODY_BYTES = 4_000_000
_OF_THE_REQUEST = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}
)
_OF_THE_CLIENT = "x-stainless-"  # it reads its own notes out of the request again
# Told of the bytes on their way; these are decoded as UTF-8 whatever a server claims them to be.
_OF_THE_TRANSFER = ("content-encoding", "content-length", "content-type", "transfer-encoding")


class HttpClient(openai.DefaultAsyncHttpxClient):
    """Reads no more than `MAX_BODY_BYTES` of a reply, unpacks nothing, and follows no redirection.

    With `only_key` requests carry that key and the bare request: OpenAI's client adds what the environment says for
    OpenAI (organization, project, headers of one's own), which is nobody else's business.
    """

    def __init__(self, only_key: str | None) -> None:
        super().__init__(follow_redirects=False)
        self._only_key = only_key

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request; the reply has its whole body, cut to the limit."""
        request.headers["accept-encoding"] = "identity"
        if self._only_key is not None:
            for name in set(request.headers) - _OF_THE_REQUEST:
                if not name.startswith(_OF_THE_CLIENT):
                    del request.headers[name]
            request.headers["authorization"] = f"Bearer {self._only_key}"
        reply = await super().send(request, **{**options, "stream": True})
        body = bytearray()
        try:
            async for chunk in reply.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    break
        finally:
            await reply.aclose()
        headers = reply.headers.copy()
        for name in _OF_THE_TRANSFER:
            headers.pop(name, None)
        content = bytes(body[:MAX_BODY_BYTES])
        return type(reply)(reply.status_code, headers=headers, content=content, request=request)
