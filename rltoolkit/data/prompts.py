"""Prompts with their references, as a Trainer reads them."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rltoolkit.data.columns import ReferenceSpec, listed, references, render, require_columns
from rltoolkit.data.tokenizer import require_chat_template
from rltoolkit.errors import DataError, ModelError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Prompt = str | list[dict[str, str]]  # text as it is, or the messages of a chat

logger = logging.getLogger(__name__)

# What the embedded worlds call their columns; the section of a recipe may leave these keys out.
DEFAULT_PROMPT = "{prompt}"
DEFAULT_REFERENCE_COLUMN = "answer"


class TextSpec(Protocol):
    """How a row becomes a prompt; the data sections of a recipe have this form."""

    @property
    def prompt(self) -> str | None:
        """A template over columns, such as "{question}"; None means "{prompt}"."""

    @property
    def format(self) -> str:
        """chat: a user's message through the chat template; text: the text itself, with the tokenizer's BOS."""

    @property
    def system(self) -> str | None:
        """A system message before the user's, in chats only."""


class PromptSpec(TextSpec, Protocol):
    """How a row becomes a prompt with a gold answer."""

    @property
    def reference(self) -> ReferenceSpec | None:
        """Where the gold answer stands; None means column "answer"."""


def build_prompts(
    rows: "Dataset",
    spec: PromptSpec,
    tokenizer: "PreTrainedTokenizerBase",
    max_prompt_tokens: int,
    *,
    key: str = "data.train",
    keep: Sequence[str] = (),
) -> "Dataset":
    """Return columns `prompt` (messages or text), `answer` (text), `row_id` (from 0) and those named in `keep`.

    Raises DataError for missing columns, empty cells, answers that the pattern does not find, and prompts
    of more than `max_prompt_tokens` tokens, which are never cut; ModelError if a chat is wanted and the
    tokenizer has no template. Prompts that occur twice are allowed and logged. `key` is the recipe's
    section, for messages.
    """
    from datasets import Dataset

    require_columns(rows, [(f"{key} needs", name) for name in keep])
    prompts = render_prompts(rows, spec, tokenizer, key=key)
    answers = references(rows, spec.reference or _DefaultReference(), f"{key}.reference")
    lengths = [len(ids) for ids in prompt_token_ids(prompts, tokenizer)]
    _refuse_long(lengths, max_prompt_tokens, key)
    note = duplicates_note(prompts, answers)
    if note:
        logger.warning("%s: %s", key, note)
    columns = {"prompt": prompts, "answer": answers, "row_id": list(range(len(rows)))}
    return Dataset.from_dict({**{name: rows[name][:] for name in keep}, **columns})


def render_prompts(rows: "Dataset", spec: TextSpec, tokenizer: "PreTrainedTokenizerBase", *, key: str) -> list[Prompt]:
    """Return each row's prompt, as messages for chats; see `build_prompts` for the errors."""
    if spec.format == "chat":
        require_chat_template(tokenizer, f"{key}.format")
    elif spec.system is not None:
        raise DataError(f"{key}.system is set, but {key}.format is text; put it into the prompt, or use format: chat")
    texts = render(rows, spec.prompt or DEFAULT_PROMPT, f"{key}.prompt")
    if spec.format != "chat":
        return list(texts)
    before = [{"role": "system", "content": spec.system}] if spec.system is not None else []
    return [[*before, {"role": "user", "content": text}] for text in texts]


def prompt_token_ids(prompts: Sequence[Prompt], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Return the token ids that a model continues, one list per prompt: the same that TRL's GRPOTrainer makes.

    Chats end with the header of the assistant's turn. All prompts are chats or all are text. Raises
    ModelError if the chat template refuses the messages.
    """
    if not prompts:
        return []
    if isinstance(prompts[0], str):
        return [list(ids) for ids in tokenizer(text=list(prompts))["input_ids"]]
    chats: Any = _templated(prompts, tokenizer, tokenize=True)
    return [list(ids) for ids in chats["input_ids"]]


def prompt_texts(prompts: Sequence[Prompt], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return each prompt as the text that stands before the answer."""
    if prompts and isinstance(prompts[0], str):
        return [str(prompt) for prompt in prompts]
    return list(_templated(prompts, tokenizer, tokenize=False)) if prompts else []


def duplicates_note(prompts: Sequence[Prompt], answers: Sequence[str]) -> str | None:
    """Describe prompts that occur more than once, or return None; different answers to one prompt are counted."""
    rows_of: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        rows_of.setdefault(str(prompt), []).append(index)
    repeated = [indices for indices in rows_of.values() if len(indices) > 1]
    if not repeated:
        return None
    torn = [indices for indices in repeated if len({answers[index] for index in indices}) > 1]
    note = f"{len(repeated)} prompts occur more than once (first: {listed(repeated[0])})"
    return f"{note}; {len(torn)} of them with different answers (first: {listed(torn[0])})" if torn else note


class _DefaultReference:
    column = DEFAULT_REFERENCE_COLUMN
    pattern: str | None = None


def _templated(prompts: Sequence[Prompt], tokenizer: "PreTrainedTokenizerBase", *, tokenize: bool) -> Any:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(
            conversation=list(prompts), add_generation_prompt=True, tokenize=tokenize, return_dict=tokenize
        )
    except TemplateError as error:
        raise ModelError(f"the chat template refuses these messages ({error}); a system message may be why") from error


def _refuse_long(lengths: Sequence[int], limit: int, key: str) -> None:
    long = [index for index, length in enumerate(lengths) if length > limit]
    if long:
        shown = ", ".join(f"row {index + 1} has {lengths[index]}" for index in long[:3])
        raise DataError(
            f"{key}: {len(long)} of {len(lengths)} prompts have more than rollout.max_prompt_tokens = {limit} tokens "
            f"({shown}); prompts are never cut. Set rollout.max_prompt_tokens to {max(lengths)} or more, or remove "
            "these rows"
        )
