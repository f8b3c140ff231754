"""Where a judge is asked, how, and how long we are ready to wait."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from reward_models.errors import VerifierError

# OpenAI's client refuses to start without a key; servers that need none ignore this one.
NO_KEY = "none"
OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class JudgeSettings:
    """How to ask a judge; picklable, and free of secrets: the key stays in the environment.

    `base_url` None is OpenAI's own (or OPENAI_BASE_URL). `api_key_env` names the environment variable with the key; a
    local server needs none. `temperature` None sends none, for models that refuse the setting. `timeout_s` bounds one
    request from start to last byte, `total_timeout_s` one question with all its retries; `max_retries` counts the
    attempts after the first, waiting about `backoff_s`, doubled each time, or as long as the server asks. `concurrency`
    bounds the requests in flight of one process; after as many questions in a row (at least 4) that waiting did not
    help, the rest of a batch fails without being asked. `structured` "auto" asks for answers under a JSON schema and
    does without where the server rejects that. `cache_dir` None keeps no answers. Prices are per million tokens, both
    or none. A text of more than `max_text_chars` characters is cut in its middle, and the judge is told so.

    Raises:
        VerifierError: settings are out of range or contradict each other; all of them are named.
    """

    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    temperature: float | None = 0.0
    max_tokens: int = 1024
    timeout_s: float = 60.0
    total_timeout_s: float = 300.0
    max_retries: int = 4
    backoff_s: float = 1.0
    concurrency: int = 16
    structured: Literal["auto", "json_schema", "off"] = "auto"
    cache_dir: str | None = None
    price_per_million_in: float | None = None
    price_per_million_out: float | None = None
    max_text_chars: int = 24_000

    def __post_init__(self) -> None:
        """Refuse what cannot work, all of it at once."""
        mistakes = []
        for check in self._checks():
            try:
                check()
            except VerifierError as mistake:
                mistakes.append(str(mistake))
        if mistakes:
            raise VerifierError("; also ".join(mistakes))

    def _checks(self) -> list[Callable[[], None]]:
        return [
            self._check_model,
            self._check_endpoint,
            self._check_temperature,
            partial(_integer, "max_tokens", self.max_tokens, 1),
            self._check_limits,
            partial(_integer, "max_retries", self.max_retries, 0),
            partial(_seconds, "backoff_s", self.backoff_s),
            partial(_integer, "concurrency", self.concurrency, 1),
            self._check_structured,
            self._check_cache_dir,
            self._check_prices,
            partial(_integer, "max_text_chars", self.max_text_chars, 100),
        ]

    def api_key(self) -> str:
        """The key out of the environment; never kept in an object that is shown or pickled.

        Raises:
            VerifierError: the variable named is not set.
        """
        if self.api_key_env is None:
            return NO_KEY  # said explicitly: the client would send OPENAI_API_KEY to whatever server base_url names
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise VerifierError(
                f"judge.api_key_env names {self.api_key_env}, which is not set; export it, "
                "or leave api_key_env out for a server that needs no key"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise VerifierError(
                f"{self.api_key_env}, which judge.api_key_env names, holds something that is no key: expected "
                "printable ASCII without spaces; export the key alone"
            )
        return key

    def endpoint(self) -> str:
        """The address to ask: `base_url`, or else OPENAI_BASE_URL, or else OpenAI's.

        Raises:
            VerifierError: OPENAI_BASE_URL, as it is now, is no address, or holds a password.
        """
        if self.base_url is not None:
            return self.base_url
        url = os.environ.get("OPENAI_BASE_URL", "").strip()
        if url:
            _check_url("OPENAI_BASE_URL", url)
        return url or OPENAI_URL

    def is_openai(self) -> bool:
        """Whether what the environment says for OpenAI's client (organization, project) is meant for this server."""
        return self.base_url is None or urlsplit(self.base_url).hostname == urlsplit(OPENAI_URL).hostname

    def _check_model(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise VerifierError(f"judge.model is {self.model!r}; expected the name that the server knows the model by")

    def _check_endpoint(self) -> None:
        if self.api_key_env is not None and not (isinstance(self.api_key_env, str) and self.api_key_env.isidentifier()):
            # Not shown: whoever puts the key itself here should not find it in a log.
            raise VerifierError(
                "judge.api_key_env is not the name of an environment variable; give a name such as OPENAI_API_KEY, "
                "not the key itself"
            )
        if self.base_url is not None:
            _check_url("judge.base_url", self.base_url)
        elif self.endpoint() == OPENAI_URL and self.api_key_env is None:
            raise VerifierError(
                "judge.base_url and judge.api_key_env are both missing; give base_url for a server of your own, "
                "such as http://localhost:8000/v1, or api_key_env: OPENAI_API_KEY for OpenAI's"
            )

    def _check_temperature(self) -> None:
        if self.temperature is not None:
            _number("temperature", self.temperature, 0.0, 2.0, "or None to send none")

    def _check_limits(self) -> None:
        _seconds("timeout_s", self.timeout_s)
        _seconds("total_timeout_s", self.total_timeout_s)
        if self.total_timeout_s < self.timeout_s:
            raise VerifierError(
                f"judge.total_timeout_s is {self.total_timeout_s} and timeout_s {self.timeout_s}; "
                "expected the whole to last at least as long as one request: raise the one or lower the other"
            )

    def _check_structured(self) -> None:
        if self.structured not in ("auto", "json_schema", "off"):
            raise VerifierError(f"judge.structured is {self.structured!r}; expected auto, json_schema or off")

    def _check_cache_dir(self) -> None:
        if self.cache_dir is not None and (not isinstance(self.cache_dir, str | Path) or not str(self.cache_dir)):
            raise VerifierError(f"judge.cache_dir is {self.cache_dir!r}; expected a folder, or None for no cache")

    def _check_prices(self) -> None:
        prices = (self.price_per_million_in, self.price_per_million_out)
        if (prices[0] is None) is not (prices[1] is None):
            raise VerifierError(
                f"judge.price_per_million_in is {prices[0]} and price_per_million_out {prices[1]}; give both or none"
            )
        for name, price in zip(("price_per_million_in", "price_per_million_out"), prices, strict=True):
            if price is not None:
                _number(name, price, 0.0, math.inf)


def _check_url(name: str, url: object) -> None:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        usable = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        parts, usable = None, False
    if parts is None or not usable:
        found = "not shown, since it holds an @" if "@" in str(url) else repr(url)  # what stands before it is secret
        raise VerifierError(f"{name} is {found}; expected an address such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise VerifierError(
            f"{name} for {parts.hostname} holds a user name, a password or a query; expected a plain address: "
            "put the key into an environment variable and name it in api_key_env"
        )


def _seconds(name: str, value: object) -> None:
    _number(name, value, 0.0, math.inf, "of seconds")
    if value == 0:
        raise VerifierError(f"judge.{name} is {value!r}; expected a number of seconds above 0")


def _number(name: str, value: object, low: float, high: float, hint: str = "") -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= float(value) <= high:  # type: ignore[arg-type]
        limits = f"from {low:g}" + ("" if high == math.inf else f" to {high:g}")
        raise VerifierError(f"judge.{name} is {value!r}; expected a number {limits} {hint}".rstrip())


def _integer(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise VerifierError(f"judge.{name} is {value!r}; expected an integer of at least {low}")
