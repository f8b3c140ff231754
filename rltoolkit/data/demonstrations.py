"""Demonstrations as token ids: what the model reads, and which of it it is to learn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rltoolkit.data.columns import render
from rltoolkit.data.prompts import Prompt, TextSpec, prompt_texts, prompt_token_ids, render_prompts
from rltoolkit.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

NO_LOSS = -100  # the label that torch's cross-entropy passes over
DEFAULT_COMPLETION = "{completion}"


class DemonstrationSpec(TextSpec, Protocol):
    """How a row becomes a prompt and the completion to imitate."""

    @property
    def completion(self) -> str | None:
        """A template over columns; None means "{completion}"."""


def build_demonstrations(
    rows: "Dataset",
    spec: DemonstrationSpec,
    tokenizer: "PreTrainedTokenizerBase",
    max_tokens: int | None,
    *,
    key: str = "sft.data",
) -> "Dataset":
    """Return columns `input_ids`, `labels`, `prompt` (messages or text) and `completion` (text), one row per row.

    `input_ids` is the prompt's ids, exactly those that sampling starts from, then the completion's and the
    end-of-sequence token; `labels` is the same with -100 on the prompt. Raises DataError for missing
    columns, empty cells, and demonstrations of more than `max_tokens` tokens (None: any length), which are
    never cut, since a demonstration without its end teaches not to end.
    """
    from datasets import Dataset

    prompts = render_prompts(rows, spec, tokenizer, key=key)
    completions = render(rows, spec.completion or DEFAULT_COMPLETION, f"{key}.completion")
    prompt_ids = prompt_token_ids(prompts, tokenizer)
    completion_ids = _completion_ids(prompts, prompt_ids, completions, tokenizer)
    _refuse_long([len(p) + len(c) for p, c in zip(prompt_ids, completion_ids, strict=True)], max_tokens, key)
    pairs = list(zip(prompt_ids, completion_ids, strict=True))
    return Dataset.from_dict(
        {
            "input_ids": [p + c for p, c in pairs],
            "labels": [[NO_LOSS] * len(p) + c for p, c in pairs],
            "prompt": prompts,
            "completion": completions,
        }
    )


def _completion_ids(
    prompts: Sequence[Prompt],
    prompt_ids: Sequence[list[int]],
    completions: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
) -> list[list[int]]:
    """Return the ids of each completion with the end-of-sequence token, as they follow the prompt's ids.

    Where prompt and completion encoded together begin with the prompt's ids, the rest is taken: some
    tokenizers put a space before a text that they encode alone. Where tokens merge across the border the
    completion is encoded alone, because sampling cannot merge across it either.
    """
    is_text = isinstance(prompts[0], str)
    starts = prompt_texts(prompts, tokenizer)
    whole_texts = [start + completion for start, completion in zip(starts, completions, strict=True)]
    # a chat template has written the special tokens already
    together = tokenizer(text=whole_texts, add_special_tokens=is_text)["input_ids"]
    found = []
    for before, whole, completion in zip(prompt_ids, together, completions, strict=True):
        if list(whole[: len(before)]) == before:
            ids = list(whole[len(before) :])
        else:
            ids = list(tokenizer(text=completion, add_special_tokens=False)["input_ids"])
        found.append(ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id])
    return found


def _refuse_long(lengths: Sequence[int], limit: int | None, key: str) -> None:
    long = [] if limit is None else [index for index, length in enumerate(lengths) if length > limit]
    if long:
        shown = ", ".join(f"row {index + 1} has {lengths[index]}" for index in long[:3])
        raise DataError(
            f"{key}: {len(long)} of {len(lengths)} demonstrations have more than sft.train.max_length = {limit} tokens "
            f"({shown}); they are never cut. Set sft.train.max_length to {max(lengths)} or more, or remove these rows"
        )
