"""The `train:` section (and `sft.train`) against the config class that takes it: all mistakes at once.

The class is passed in, so that nothing here imports a trainer. Its fields, their types and its own checks
are read from it: a new field of the class is a new key of the section.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Union

from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.problems import RecipeError, did_you_mean
from rltoolkit.recipe.schema import Recipe
from rltoolkit.recipe.train_ranges import OWNED_ELSEWHERE, RANGES

# A list of choices longer than this is cut in a message.
MANY = 8


def build_config(
    loaded: LoadedRecipe,
    config_class: Callable[..., Any],
    *,
    section: str = "train",
    fixed: Mapping[str, Any] | None = None,
) -> Any:
    """The config object from a section of the recipe: "train", or "sft.train" (see `settings_section`).

    `fixed` holds what the caller takes from other sections (output_dir, seed, temperature ...); those keys
    are refused in the section itself. Raises RecipeError with all problems of the section.
    """
    section = settings_section(loaded.recipe, section)
    values = section_values(loaded, section)
    findings = list(check_train_section(values, config_class, section=section))
    wrong = {finding.key.removeprefix(f"{section}.") for finding in findings}
    good = {name: value for name, value in values.items() if name not in wrong}
    config = None
    try:
        config = config_class(**{**good, **(fixed or {})})
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        # What it says about a key that is wrong already would be said twice.
        if not any(re.search(rf"\b{re.escape(name)}\b", str(error)) for name in wrong):
            findings.append(_constructor_finding(error, good, section))
    if findings:
        raise RecipeError([loaded.problem(finding) for finding in findings])
    return config


def settings_section(recipe: Recipe, section: str) -> str:
    """Where the settings of a stage stand: for method `sft` they may stand in `train` in place of `sft.train`."""
    if section == "sft.train" and recipe.method == "sft" and (recipe.sft is None or not recipe.sft.train):
        return "train"
    return section


def section_values(loaded: LoadedRecipe, section: str) -> dict[str, Any]:
    """The raw keys and values of "train" or "sft.train"."""
    recipe = loaded.recipe
    if section == "train":
        return dict(recipe.train)
    return dict(recipe.sft.train) if recipe.sft is not None else {}


def check_train_section(
    values: Mapping[str, Any], config_class: Callable[..., Any], *, section: str = "train"
) -> Iterator[Finding]:
    """Unknown keys, keys that belong to another section, wrong types and values out of range."""
    fields = {field.name for field in dataclasses.fields(typing.cast(Any, config_class)) if field.init}
    hints = _hints(config_class)
    for name, value in values.items():
        key = f"{section}.{name}"
        if name in OWNED_ELSEWHERE:
            yield Finding(key, "belongs to another section", remedy=f"set {OWNED_ELSEWHERE[name]}")
        elif name not in fields:
            known = [f"{section}.{field}" for field in fields if field not in OWNED_ELSEWHERE]
            own = [f for f in OWNED_ELSEWHERE.values() if re.fullmatch(r"[\w.]+", f)]
            yield Finding(key, "unknown key", remedy=did_you_mean(key, sorted(known) + own, "remove it"))
        elif not _accepts(hints.get(name, Any), value):
            yield Finding(key, f"is {_shown(value)}", _describe(hints[name]), _nearest_choice(hints[name], value))
        elif name in RANGES and _is_number(value) and not RANGES[name].holds(value):
            yield Finding(key, f"is {_shown(value)}", str(RANGES[name]))


def _constructor_finding(error: Exception, values: Mapping[str, Any], section: str) -> Finding:
    """What the class itself refuses, shown at the first of our keys that its message names."""
    text = " ".join(str(error).split())
    named = [name for name in values if re.search(rf"\b{re.escape(name)}\b", text)]
    key = f"{section}.{min(named, key=text.index)}" if named else section
    text = text.rstrip(".")
    return Finding(key, f"refused by the trainer's config: {text}", remedy="change the values it names")


def _hints(config_class: Callable[..., Any]) -> dict[str, Any]:
    """The types of the fields; where a name in them cannot be resolved, that class's fields go unchecked."""
    hints: dict[str, Any] = {}
    for base in reversed(typing.cast(type, config_class).__mro__):
        try:
            hints.update(typing.get_type_hints(base))
        except NameError:  # a name that its module imports for type checkers only
            continue
    return hints


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _accepts(hint: Any, value: object) -> bool:
    """Whether a YAML value fits a type; a type that says nothing about YAML values accepts everything."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_accepts(option, value) for option in _options(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin is typing.Annotated:
        return _accepts(typing.get_args(hint)[0], value)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return _is_number(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [member.value for member in hint] or isinstance(value, hint)
    for plain in (str, dict, list):
        if hint is plain or origin is plain:
            return isinstance(value, plain)
    return True


def _options(union: Any) -> list[Any]:
    """The members of a union; beside an enum, `str` only means that its members may be spelt out."""
    options = list(typing.get_args(union))
    has_enum = any(isinstance(option, type) and issubclass(option, enum.Enum) for option in options)
    return [option for option in options if option is not str] if has_enum else options


def _describe(hint: Any) -> str:
    """A type in words."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        parts = [_describe(option) for option in _options(hint)]
        return " or ".join(dict.fromkeys(parts))
    if typing.get_origin(hint) is Literal:
        return f"one of {_listed(typing.get_args(hint))}"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {_listed([member.value for member in hint])}"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        type(None): "null",
    }
    names |= {dict: "a section (`key: value`)", list: "a list"}
    plain = typing.get_origin(hint) or hint
    return names.get(plain, getattr(plain, "__name__", str(plain)))


def _nearest_choice(hint: Any, value: object) -> str:
    """A suggestion where the type is a list of names and the value nearly one of them."""
    enums = [o for o in (hint, *typing.get_args(hint)) if isinstance(o, type) and issubclass(o, enum.Enum)]
    names = [str(member.value) for option in enums for member in option]
    return did_you_mean(value, names, "") if isinstance(value, str) else ""


def _listed(options: Sequence[object]) -> str:
    shown = ", ".join(str(option) for option in options[:MANY])
    return f"{shown} or {len(options) - MANY} others" if len(options) > MANY else shown


def _shown(value: object) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
