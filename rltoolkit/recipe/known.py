"""Every dotted key that a recipe may hold, read off the schema, for the suggestions in error messages."""

from __future__ import annotations

import types
from collections.abc import Iterator
from functools import cache
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from rltoolkit.recipe.plugin_options import PLUGIN_OPTIONS, option_names
from rltoolkit.recipe.schema import Recipe
from rltoolkit.recipe.train_ranges import RANGES


@cache
def known_keys() -> tuple[str, ...]:
    """All keys of the recipe's own sections, options of what we ship, the best-known keys of `train:`."""
    keys = [*_keys_of(Recipe, "")]
    for path, (_, options_of) in PLUGIN_OPTIONS.items():
        keys += [".".join((*path, name)) for options in options_of.values() for name in option_names(options)]
    keys += [f"train.{name}" for name in RANGES]
    return tuple(dict.fromkeys(keys))


def _keys_of(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = section_class(field.annotation)
        if inner is not None:
            yield from _keys_of(inner, f"{prefix}{name}.")


def section_class(annotation: Any) -> type[BaseModel] | None:
    """The section class in an annotation such as `LoraSection | None`, if there is one."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None
