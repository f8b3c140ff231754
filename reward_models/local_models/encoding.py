"""From texts to token ids, without ever cutting one: what is too long is said to be too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reward_models.errors import VerifierError
from reward_models.local_models.prompts import Prompt, as_messages, plain_opening

Template = Literal["auto", "chat", "plain"]

# A text of more characters per allowed token is refused unread: encoding ten megabytes takes long, and no prose has
# tokens of this length on average.
CHARACTERS_PER_TOKEN = 64
# Tokenizers without a limit state a number near 1e30.
NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids, or the reason why there are none."""

    ids: tuple[int, ...] | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A number read from a model, or the reason why there is none."""

    value: float | None
    problem: str = ""


class TextEncoder:
    """Writes prompts and answers the way a model was trained to read them.

    `template`: "chat" uses the tokenizer's chat template, a text prompt being one message of the user; "plain" joins
    texts (see `plain_opening`); "auto" takes the chat template for messages, if there is one, and plain for texts,
    which is how TRL reads conversational and plain datasets. `max_length` counts tokens, None is no limit.
    """

    def __init__(self, tokenizer: Any, *, template: Template = "auto", max_length: int | None = None) -> None:
        if template not in ("auto", "chat", "plain"):
            raise VerifierError(f"template is {template!r}; expected 'auto', 'chat' or 'plain'")
        if template == "chat" and not tokenizer.chat_template:
            raise VerifierError("template is 'chat', but the tokenizer has no chat template; set one or take 'plain'")
        if max_length is not None and max_length < 1:
            raise VerifierError(f"max_length is {max_length}; give a number of tokens, at least 1")
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length

    def answered(self, prompt: Prompt, response: str) -> Encoded:
        """Encode a prompt with a finished response, closed by the chat template or the end token."""
        if self._is_chat(prompt):
            return self._chat([*as_messages(prompt), {"role": "assistant", "content": response}])
        text, end = plain_opening(prompt) + response, self.tokenizer.eos_token or ""
        return self._plain(text if text.endswith(end) else text + end)

    def opened(self, prompt: Prompt, continuation: str = "", *, bos: bool = True) -> Encoded:
        """Encode a prompt with an answer that goes on; `bos=False` leaves the start token out."""
        if self._is_chat(prompt):
            return self._chat(as_messages(prompt), continuation, bos=bos, add_generation_prompt=True)
        text = plain_opening(prompt) + continuation
        encoded = self._plain(text, bos=bos)
        end = self.tokenizer.eos_token
        if encoded.ids and encoded.ids[-1] == self.tokenizer.eos_token_id and not text.endswith(end):
            return Encoded(encoded.ids[:-1])  # the tokenizer closed the text, and nothing follows an end
        return encoded

    def _chat(
        self, messages: list[dict[str, str]], continuation: str = "", *, bos: bool = True, **options: bool
    ) -> Encoded:
        """Encode through the chat template, which writes all special tokens itself."""
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        except TemplateError as error:  # such as roles that do not alternate
            return Encoded(None, f"the chat template refuses the messages: {error}")
        return self._encode(text + continuation, bos=bos, special=False)

    def _plain(self, text: str, *, bos: bool = True) -> Encoded:
        """Encode with the tokenizer's special tokens, unless the text brings its start token along."""
        start = self.tokenizer.bos_token
        return self._encode(text, bos=bos, special=bos and not (start and text.startswith(start)))

    def _encode(self, text: str, *, bos: bool, special: bool) -> Encoded:
        if self.max_length is not None and len(text) > self.max_length * CHARACTERS_PER_TOKEN:
            return Encoded(None, f"too long: {len(text)} characters, limit {self.max_length} tokens")
        if not bos:
            text = text.removeprefix(self.tokenizer.bos_token or "")
        ids = self.tokenizer(text, add_special_tokens=special, truncation=False, verbose=False)["input_ids"]
        if not ids:
            return Encoded(None, "the text has no tokens")
        if self.max_length is not None and len(ids) > self.max_length:
            return Encoded(None, f"too long: {len(ids)} tokens, limit {self.max_length}")
        return Encoded(tuple(ids))

    def _is_chat(self, prompt: Prompt) -> bool:
        if self.template == "auto":
            return bool(self.tokenizer.chat_template) and not isinstance(prompt, str)
        return self.template == "chat"


def context_limit(tokenizer: Any, config: Any) -> int | None:
    """Return the most tokens that both the tokenizer and the model's config allow, None if neither says."""
    limits = (tokenizer.model_max_length, getattr(config.get_text_config(), "max_position_embeddings", None))
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < NO_LIMIT]
    return min(known, default=None)


def same_length(**columns: Sequence[object]) -> int:
    """Return the common length of the columns.

    Raises:
        VerifierError: the lengths differ.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise VerifierError(f"lengths differ: {lengths}; give one entry per query in each")
    return next(iter(lengths.values()))
