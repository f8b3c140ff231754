"""The datasets of a recipe: columns, first rows, lengths, and the gold answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rltoolkit.data.columns import references, render
from rltoolkit.data.demonstrations import DEFAULT_COMPLETION, build_demonstrations
from rltoolkit.data.load import load_rows
from rltoolkit.data.prompts import DEFAULT_PROMPT, DEFAULT_REFERENCE_COLUMN, build_prompts, prompt_token_ids
from rltoolkit.errors import DataError
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.paths import is_embedded, resolve_data_path
from rltoolkit.recipe.schema import DataSource, Reference

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

FIRST_ROWS = 2
SHOWN = 200


class NotReachable(Exception):  # noqa: N818  # a state of the network, no fault of the recipe
    """A hub dataset that cannot be loaded from here."""


@dataclass(frozen=True)
class DataFacts:
    """What a dataset holds: lines to show, its size, and what later checks need."""

    lines: tuple[str, ...]
    rows: int
    references: tuple[str, ...] = ()
    longest: int | None = None


def prompt_facts(
    loaded: LoadedRecipe, tokenizer: PreTrainedTokenizerBase | None, *, look_on_hub: bool = True
) -> DataFacts:
    """Prompts and references of `data.train`; raises DataError, or NotReachable for the hub."""
    recipe = loaded.recipe
    if recipe.data is None:
        raise DataError("data.train is missing; give a dataset")
    source = recipe.data.train
    rows = _rows(loaded, source, look_on_hub)
    if tokenizer is None:
        texts = render(rows, source.prompt or DEFAULT_PROMPT, "data.train.prompt")
        reference = source.reference or Reference(column=DEFAULT_REFERENCE_COLUMN)
        answers = references(rows, reference, "data.train.reference")
        return DataFacts(tuple(_described(rows, texts, answers, "reference")), len(rows), tuple(answers))
    built = build_prompts(rows, source, tokenizer, recipe.rollout.max_prompt_tokens)
    prompts, answers = built["prompt"][:], built["answer"][:]
    lengths = [len(ids) for ids in prompt_token_ids(prompts, tokenizer)]
    lines = [*_described(rows, prompts, answers, "reference"), _lengths("prompt", lengths)]
    return DataFacts(tuple(lines), len(rows), tuple(answers), max(lengths))


def demonstration_facts(
    loaded: LoadedRecipe,
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int | None,
    *,
    look_on_hub: bool = True,
) -> DataFacts:
    """Prompts and completions of `sft.data`; raises DataError, or NotReachable for the hub."""
    sft = loaded.recipe.sft
    if sft is None:
        raise DataError("sft is missing; give sft.data")
    rows = _rows(loaded, sft.data, look_on_hub)
    if tokenizer is None:
        texts = render(rows, sft.data.prompt or DEFAULT_PROMPT, "sft.data.prompt")
        completions = render(rows, sft.data.completion or DEFAULT_COMPLETION, "sft.data.completion")
        return DataFacts(tuple(_described(rows, texts, completions, "completion")), len(rows))
    built = build_demonstrations(rows, sft.data, tokenizer, max_length)
    lengths = [len(ids) for ids in built["input_ids"][:]]
    lines = _described(rows, built["prompt"][:FIRST_ROWS], built["completion"][:FIRST_ROWS], "completion")
    return DataFacts((*lines, _lengths("demonstration", lengths)), len(rows), longest=max(lengths))


def _rows(loaded: LoadedRecipe, source: DataSource, look_on_hub: bool) -> Dataset:
    place = resolve_data_path(source.path, loaded.path)
    on_hub = isinstance(place, str) and not is_embedded(place)
    out_of_reach = f"dataset {place} is not verified: it cannot be loaded from here"
    if on_hub and not look_on_hub:
        raise NotReachable(out_of_reach)
    try:
        return load_rows(source, loaded.path, seed=loaded.recipe.seed)
    except DataError as error:
        if on_hub:
            raise NotReachable(out_of_reach) from error
        raise


def _described(rows: Dataset, prompts: Sequence[Any], answers: Sequence[str], name: str) -> list[str]:
    lines = [f"{len(rows)} rows, columns: {', '.join(rows.column_names)}"]
    for index in range(min(FIRST_ROWS, len(rows))):
        lines.append(f"row {index + 1} prompt: {_shown(prompts[index])}")
        lines.append(f"row {index + 1} {name}: {_shown(answers[index])}")
    return lines


def _lengths(what: str, lengths: Sequence[int]) -> str:
    middle = sorted(lengths)[len(lengths) // 2]
    return f"{what} tokens: median {middle}, longest {max(lengths)}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else " ".join(f"[{m['role']}] {m['content']!r}" for m in value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
