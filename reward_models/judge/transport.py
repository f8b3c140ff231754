"""One question to the server: the time limit, the retries, and what the server turns out to support."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reward_models.errors import VerifierError
from reward_models.judge.completion import Reply, read_completion
from reward_models.judge.judgement import JudgeOutcome
from reward_models.judge.prompts import Question
from reward_models.judge.reading import shown
from reward_models.judge.settings import JudgeSettings
from reward_models.judge.tally import Tally
from reward_models.judge.waiting import asked_wait, backoff

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

# Waiting helps against these; everything else would come back the same.
RETRIED = frozenset(
    {JudgeOutcome.TIMEOUT, JudgeOutcome.RATE_LIMITED, JudgeOutcome.SERVER_ERROR, JudgeOutcome.UNREACHABLE}
)
_OUTCOME_OF_STATUS = {
    401: JudgeOutcome.UNAUTHORIZED,
    403: JudgeOutcome.UNAUTHORIZED,
    408: JudgeOutcome.TIMEOUT,
    409: JudgeOutcome.SERVER_ERROR,
    429: JudgeOutcome.RATE_LIMITED,
    504: JudgeOutcome.TIMEOUT,
}
MIN_KEY_CHARS = 8
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation"})


def require_openai() -> None:
    """See whether the openai package is there, without loading it.

    Raises:
        VerifierError: it is not installed.
    """
    if importlib.util.find_spec("openai") is None:
        raise VerifierError("an LLM judge needs the package openai, which is missing; pip install rltoolkit[judge]")


def _load_openai() -> Any:
    """The openai package, imported when it is first needed: that takes half a second."""
    require_openai()
    import openai

    return openai


@dataclass(frozen=True)
class _Attempt:
    reply: Reply
    again: bool  # whether waiting may help
    wait_s: float = 0.0  # as the server asks


class Transport:
    """Asks the server; all of it runs in the one event loop of a judge.

    What the server rejects (a response format, the old name of the token limit) is remembered, so that it is found out
    once and not with every question.
    """

    def __init__(self, settings: JudgeSettings, tally: Tally) -> None:
        self._openai = _load_openai()
        self._settings = settings
        self._tally = tally
        self._key = settings.api_key()
        self._client: openai.AsyncOpenAI = self._openai.AsyncOpenAI(
            api_key=self._key,
            base_url=settings.endpoint(),
            timeout=settings.timeout_s,
            max_retries=0,
            http_client=_http_client(None if settings.is_openai() else self._key),
        )
        self._uses_schema = settings.structured != "off"
        self._may_drop_schema = settings.structured == "auto"
        self._limit_name = "max_tokens"

    @property
    def base_url(self) -> str:
        """Where questions go, the library's default filled in."""
        return str(self._client.base_url)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, question: Question) -> Reply:
        """Ask until there is an answer or a limit is reached."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.total_timeout_s
        for number in range(self._settings.max_retries + 1):
            attempt = await self._attempt(question, min(self._settings.timeout_s, deadline - loop.time()))
            wait = max(attempt.wait_s, backoff(number, self._settings.backoff_s))
            is_last = number == self._settings.max_retries or loop.time() + wait >= deadline
            if not attempt.again or is_last:
                break
            await asyncio.sleep(wait)
            self._tally.add("retries")
        return attempt.reply

    async def _attempt(self, question: Question, timeout_s: float) -> _Attempt:
        """One attempt within `timeout_s`: the client's own limit holds per read, and a server may drip."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send(question)
        except TimeoutError:
            return _Attempt(Reply(JudgeOutcome.TIMEOUT, f"no complete answer within {timeout_s:.3g} s"), True)
        except self._openai.APIConnectionError as error:
            cause = error.__cause__
            detail = f"{error}" if cause is None else f"{error} {type(cause).__name__}: {cause}"
            timed_out = isinstance(error, self._openai.APITimeoutError)
            outcome = JudgeOutcome.TIMEOUT if timed_out else JudgeOutcome.UNREACHABLE
            return _Attempt(Reply(outcome, shown(self._without_key(detail), 300)), True)
        except Exception as error:  # noqa: BLE001  whatever a server can make a library raise costs one question only
            detail = f"{type(error).__name__}: {self._without_key(str(error))}"
            return _Attempt(Reply(JudgeOutcome.SERVER_ERROR, f"a reply that cannot be read: {shown(detail)}"), True)

    async def _send(self, question: Question) -> _Attempt:
        """Send the request, in another form where the server rejects the form (status 400 or 422)."""
        with_schema, limit_name = self._uses_schema, self._limit_name
        while True:
            self._tally.add("requests")
            arguments = self._arguments(question, with_schema=with_schema, limit_name=limit_name)
            try:
                raw = await self._client.chat.completions.with_raw_response.create(**arguments)
            except self._openai.APIStatusError as error:
                if error.status_code not in (400, 422):
                    return self._failure(error)
                if limit_name == "max_tokens" and "max_completion_tokens" in error.response.text:
                    limit_name = "max_completion_tokens"
                elif with_schema and (self._may_drop_schema or not self._uses_schema):
                    with_schema = False
                else:
                    return self._failure(error)
                continue
            reply = read_completion(self._without_key(raw.content.decode("utf-8", "replace")))
            if reply.outcome is not JudgeOutcome.SERVER_ERROR:
                self._remember(with_schema=with_schema, limit_name=limit_name)
            self._tally.add_usage(reply.prompt_tokens, reply.completion_tokens)
            return _Attempt(reply, reply.outcome in RETRIED)

    def _arguments(self, question: Question, *, with_schema: bool, limit_name: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self._settings.model,
            "messages": question.messages,
            limit_name: self._settings.max_tokens,
        }
        if self._settings.temperature is not None:
            arguments["temperature"] = self._settings.temperature
        if with_schema:
            schema = {"name": question.scale.field, "strict": True, "schema": question.scale.schema}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        return arguments

    def _remember(self, *, with_schema: bool, limit_name: str) -> None:
        """The server took this form: keep to it, and blame the question for what it rejects from now on.

        A schema that was taken once stays in use, even if questions under way at that time did without.
        """
        self._limit_name = limit_name
        if self._may_drop_schema:
            if not with_schema:
                logger.warning(
                    "the judge's server at %s takes no JSON schema: answers are read from free text. "
                    "structured: off asks for none from the start",
                    self.base_url,
                )
            self._uses_schema, self._may_drop_schema = with_schema, False

    def _failure(self, error: openai.APIStatusError) -> _Attempt:
        status = error.status_code
        default = JudgeOutcome.SERVER_ERROR if status >= 500 else JudgeOutcome.BAD_REQUEST
        outcome = _OUTCOME_OF_STATUS.get(status, default)
        code = str(error.code)  # the server may have sent anything
        if code in _FILTER_CODES:
            outcome = JudgeOutcome.REFUSED
        again = outcome in RETRIED and code != "insufficient_quota"  # an empty account does not fill by waiting
        wait = asked_wait(error.response.headers)
        asked = f", and asks to wait {wait:.3g} s" if wait else ""
        if target := error.response.headers.get("location"):
            asked += f", and points to {shown(self._without_key(target))}"
        said = shown(self._without_key(error.response.text), 300)
        return _Attempt(Reply(outcome, f"status {status}{asked}: {said}"), again, wait)

    def _without_key(self, text: str) -> str:
        """A server may quote the key back: it is taken out of all it sends before anything reads or cuts that.

        What is shorter than a key ever is ("EMPTY", for a server that takes any) would be taken out of other words.
        """
        return text if len(self._key) < MIN_KEY_CHARS else text.replace(self._key, "[key]")


def _http_client(only_key: str | None) -> Any:
    from reward_models.judge.http_client import HttpClient

    return HttpClient(only_key)
