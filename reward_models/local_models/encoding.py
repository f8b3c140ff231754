"""From texts to token ids, without ever cutting one: what is too long is said to be too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reward_models.errors import VerifierError
from reward_models.local_models.prompts import Prompt, as_messages, plain_opening
from reward_models.local_models.special_tokens import special_token_in, special_tokens, without_end

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


class _RefusedError(Exception):
    """A text that cannot be encoded; never leaves this module."""


class TextEncoder:
    """Writes prompts and answers the way a model was trained to read them.

    `template`: "chat" uses the tokenizer's chat template, a text prompt being one message of the user; "plain" joins
    texts (see `plain_opening`); "auto" takes the chat template for messages, if there is one, and plain for texts,
    which is how TRL reads conversational and plain datasets. `max_length` counts tokens, None is no limit.

    An answer or a message that holds a special token as text is refused: read as a real one it could close its turn
    and open another. End tokens behind an answer are dropped. A text prompt that is joined plainly may hold special
    tokens, since it may have been rendered before; so it must not come from a stranger.
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
        self.special_tokens = special_tokens(tokenizer)
        ids = set(tokenizer.convert_tokens_to_ids(list(self.special_tokens)))
        self._special_ids = ids - {tokenizer.unk_token_id}  # any letter may be unknown

    def answered(self, prompt: Prompt, response: str) -> Encoded:
        """Encode a prompt with a finished response, closed by the chat template or the end token.

        After messages that end with one of the assistant the response is a message of its own, as in TRL's
        RewardTrainer.
        """
        response = without_end(response, self.tokenizer.eos_token)
        try:
            self._check_messages(prompt)
            if self._is_chat(prompt):
                self._check_answer(response)
                messages = [*as_messages(prompt), {"role": "assistant", "content": response}]
                return self._encode(self._rendered(messages), special=False)
            opening = plain_opening(prompt)
            self._check_answer(opening + response, start=len(opening))
            return self._plain(opening + response + (self.tokenizer.eos_token or ""))
        except _RefusedError as refusal:
            return Encoded(None, str(refusal))

    def opened(self, prompt: Prompt, continuation: str = "", *, bos: bool = True) -> Encoded:
        """Encode a prompt with an answer that goes on; `bos=False` leaves the start token out.

        Messages that end with one of the assistant are continued there, as by TRL's trainers.
        """
        continuation = without_end(continuation, self.tokenizer.eos_token)
        try:
            opening = self._opening(prompt)
            self._check_answer(opening + continuation, start=len(opening))
            return self._unclosed(prompt, opening + continuation, bos=bos)
        except _RefusedError as refusal:
            return Encoded(None, str(refusal))

    def first_word(self, prompt: Prompt, word: str, *, bos: bool = True) -> Encoded:
        """Return the tokens that an answer adds to the prompt's if it is this word.

        With the space that a chat template writes before an answer. They depend on the text before: a tokenizer may
        read the same word otherwise at the start of a text.
        """
        try:
            opening = self._opening(prompt)
            answer = self._lead(prompt, opening, word) + word
            before, after = (self._unclosed(prompt, text, bos=bos).ids for text in (opening, opening + answer))
        except _RefusedError as refusal:
            return Encoded(None, str(refusal))
        if not before or not after or after[: len(before)] != before:
            return Encoded(None, f"{word!r} is merged with the end of the text before")
        return Encoded(after[len(before) :])

    def _opening(self, prompt: Prompt) -> str:
        """Write the prompt up to where the answer goes on."""
        self._check_messages(prompt)
        goes_on = not isinstance(prompt, str) and prompt[-1]["role"] == "assistant"
        if self._is_chat(prompt):
            return self._rendered(
                as_messages(prompt), add_generation_prompt=not goes_on, continue_final_message=goes_on
            )
        if goes_on:
            return plain_opening(prompt[:-1]) + as_messages(prompt)[-1]["content"]
        return plain_opening(prompt)

    def _lead(self, prompt: Prompt, opening: str, word: str) -> str:
        """Return the white space that the chat template writes between an opened answer and its text."""
        if not self._is_chat(prompt):
            return ""
        whole = self._rendered([*as_messages(prompt), {"role": "assistant", "content": word}])
        rest = whole.removeprefix(opening) if whole.startswith(opening) else ""
        text = rest.lstrip()
        return rest[: len(rest) - len(text)] if text.startswith(word) else ""

    def _check_messages(self, prompt: Prompt) -> None:
        if isinstance(prompt, str) and not self._is_chat(prompt):
            return
        for index, message in enumerate(as_messages(prompt)):
            token = special_token_in(message["content"], self.special_tokens)
            if token is not None:
                raise _RefusedError(f"message {index} of the prompt holds the special token {token!r}")

    def _check_answer(self, text: str, start: int = 0) -> None:
        token = special_token_in(text, self.special_tokens, start)
        if token is not None:
            raise _RefusedError(f"the answer holds the special token {token!r}")

    def _rendered(self, messages: list[dict[str, str]], **options: bool) -> str:
        """Write messages through the chat template, which writes all special tokens itself."""
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **options))
        except (TemplateError, ValueError) as error:  # roles that do not alternate; a message it cannot continue
            raise _RefusedError(f"the chat template refuses the messages: {error}") from error

    def _unclosed(self, prompt: Prompt, text: str, *, bos: bool) -> Encoded:
        """Encode a text that goes on."""
        if self._is_chat(prompt):
            return self._encode(text if bos else self._without_start(text), special=False)
        encoded = self._plain(text if bos else self._without_start(text), bos=bos)
        end = self.tokenizer.eos_token
        if encoded.ids and encoded.ids[-1] == self.tokenizer.eos_token_id and not text.endswith(end):
            return Encoded(encoded.ids[:-1])  # the tokenizer closed the text, and nothing follows an end
        return encoded

    def _without_start(self, text: str) -> str:
        return text.removeprefix(self.tokenizer.bos_token or "")

    def _plain(self, text: str, *, bos: bool = True) -> Encoded:
        """Encode with the tokenizer's special tokens, unless the text brings its start token along."""
        start = self.tokenizer.bos_token
        return self._encode(text, special=bos and not (start and text.startswith(start)))

    def _encode(self, text: str, *, special: bool) -> Encoded:
        if self.max_length is not None and len(text) > self.max_length * CHARACTERS_PER_TOKEN:
            raise _RefusedError(f"too long: {len(text)} characters, limit {self.max_length} tokens")
        ids = self.tokenizer(text, add_special_tokens=special, truncation=False, verbose=False)["input_ids"]
        if not ids:
            raise _RefusedError("the text has no tokens")
        if self.max_length is not None and len(ids) > self.max_length:
            raise _RefusedError(f"too long: {len(ids)} tokens, limit {self.max_length}")
        self._check_ids(text, ids, special=special)
        return Encoded(tuple(ids))

    def _check_ids(self, text: str, ids: list[int], *, special: bool) -> None:
        """Refuse special tokens that nobody wrote: a normalizer can make them from other letters."""
        written = sum(text.count(token) for token in self.special_tokens)
        added = self.tokenizer.num_special_tokens_to_add() if special else 0
        if sum(token_id in self._special_ids for token_id in ids) > written + added:
            raise _RefusedError("the tokenizer reads special tokens from letters that look like them")

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
