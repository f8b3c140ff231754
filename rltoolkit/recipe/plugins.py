"""From a name in a recipe to the object: verifiers and exploration rewards, ours by name, others by import path."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_models import CountdownVerifier, DistinctSteps, LengthExploration, MathVerifier
from reward_models.choice import ChoiceVerifier
from reward_models.combine import AllOf, AnyOf
from reward_models.exploration import ExplorationReward
from reward_models.integer import IntegerVerifier
from reward_models.json_schema import JsonSchemaVerifier
from reward_models.judged_effort import JudgedEffort
from reward_models.numeric import NumericVerifier
from reward_models.regex import RegexVerifier
from reward_models.text_match import ExactVerifier
from reward_models.verdict import Verifier
from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.plugin_options import EXPLORATION_OPTIONS, VERIFIER_OPTIONS, option_names
from rltoolkit.recipe.problems import RecipeError, RefusedError

COMBINATIONS: Mapping[str, Callable[..., Verifier]] = {"all_of": AllOf, "any_of": AnyOf}
VERIFIER_CLASSES: Mapping[str, Callable[..., Verifier]] = {
    "math": MathVerifier,
    "countdown": CountdownVerifier,
    "integer": IntegerVerifier,
    "exact": ExactVerifier,
    "regex": RegexVerifier,
    "choice": ChoiceVerifier,
    "numeric": NumericVerifier,
    "json_schema": JsonSchemaVerifier,
    **COMBINATIONS,
}
EXPLORATION_CLASSES: Mapping[str, Callable[..., ExplorationReward]] = {
    "length": LengthExploration,
    "distinct_steps": DistinctSteps,
    "judge": JudgedEffort.from_options,
}


class NotMadeError(ValueError):
    """Something that was named cannot be made; `finding` says what and where."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


def make_verifier(loaded: LoadedRecipe) -> Verifier:
    """The verifier of `rewards.outcome`; raises RecipeError where it cannot be made."""
    rewards = loaded.recipe.rewards
    if rewards is None:
        raise RecipeError([loaded.problem(Finding("rewards.outcome", "missing", remedy="name a verifier"))])
    section: dict[str, Any] = {"verifier": rewards.outcome.verifier, **rewards.outcome.options}
    if loaded.recipe.train.get("paper_compat") is True:
        section = _with_first_box(section)
    try:
        return build_verifier(section, "rewards.outcome", [loaded.path.parent])
    except NotMadeError as error:
        raise RecipeError([loaded.problem(error.finding)]) from error


def build_verifier(section: Mapping[str, Any], place: str = "", folders: Sequence[Path] = ()) -> Verifier:
    """The verifier that `section["verifier"]` names, with the other keys of the section as its options.

    Those of ours have been checked (`option_findings`). `place` is where the section stands, for messages; `folders`
    are searched for modules beside the working directory. Raises NotMadeError.
    """
    name = str(section["verifier"])
    options = {key: value for key, value in section.items() if key != "verifier"}
    if name in COMBINATIONS:
        inner = enumerate(options["verifiers"])
        options["verifiers"] = [build_verifier(one, _key(place, f"verifiers.{index}"), folders) for index, one in inner]
    made = _make(place, "verifier", name, options, VERIFIER_CLASSES, folders)
    if not isinstance(made, Verifier):
        raise _wrong_kind(_key(place, "verifier"), name, made, "check(response, reference)")
    return made


def _with_first_box(section: Mapping[str, Any]) -> dict[str, Any]:
    """A verifier's section in paper mode: math reads the first box, as released and as the length term does."""
    if section["verifier"] in COMBINATIONS:
        return {**section, "verifiers": [_with_first_box(one) for one in section["verifiers"]]}
    return {"box": "first", **section} if section["verifier"] == "math" else dict(section)


def make_exploration(loaded: LoadedRecipe) -> ExplorationReward | None:
    """The exploration reward of the recipe, None for `none`; raises RecipeError where it cannot be made.

    In paper mode `length` is the trainer's own -C/L, so there is no object for it either.
    """
    rewards = loaded.recipe.rewards
    section = None if rewards is None else rewards.exploration
    if section is None or section.kind == "none":
        return None
    if section.kind == "length" and loaded.recipe.train.get("paper_compat") is True:
        return None
    place, folders = "rewards.exploration", [loaded.path.parent]
    try:
        made = _make(place, "kind", section.kind, section.options, EXPLORATION_CLASSES, folders)
        if not isinstance(made, ExplorationReward):
            raise _wrong_kind(f"{place}.kind", section.kind, made, "score(response, token_count)")
    except NotMadeError as error:
        raise RecipeError([loaded.problem(error.finding)]) from error
    return made


def import_object(path: str, folders: Sequence[Path] = ()) -> Any:
    """What `package.module:Name` names; raises RefusedError with what went wrong.

    The working directory and then `folders` are searched last, so that a file beside the recipe or beside its start
    is found and hides nothing.
    """
    for folder in (Path.cwd(), *folders):
        if str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))
    module_name, _, name = path.partition(":")
    if module_name.endswith(".py"):
        raise RefusedError(f"is {path!r}, a file name", remedy=f"name the module: {module_name[:-3]}:{name}")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"is {path!r}, which cannot be imported ({type(error).__name__}: {error})"
        if isinstance(error, ModuleNotFoundError):
            remedy = "install it, or start from the folder that holds it"
        else:
            remedy = f"correct the file; `python -c 'import {module_name}'` shows the line"
        raise RefusedError(reason, remedy=remedy) from error
    if not hasattr(module, name):
        found = getattr(module, "__file__", None) or "a folder"
        raise RefusedError(
            f"is {path!r}, but {module_name} ({found}) has no {name}", remedy="check the name after the colon"
        )
    return getattr(module, name)


def _make(
    place: str,
    key: str,
    name: str,
    options: Mapping[str, Any],
    known: Mapping[str, Callable[..., Any]],
    folders: Sequence[Path],
) -> Any:
    try:
        factory = known[name] if name in known else import_object(name, folders)
    except RefusedError as refusal:
        finding = Finding(_key(place, key), refusal.found, refusal.expected, refusal.remedy)
        raise NotMadeError(finding) from refusal
    if not callable(factory):
        raise NotMadeError(Finding(_key(place, key), f"is {name!r}, a {type(factory).__name__}", "a class"))
    try:
        return factory(**options)
    except Exception as error:
        kind = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        finding = Finding(place or key, f"{name} refuses its options: {kind}{error}", remedy=_takes(name, factory))
        raise NotMadeError(finding) from error


def _takes(name: str, factory: Callable[..., Any]) -> str:
    options = {**VERIFIER_OPTIONS, **EXPLORATION_OPTIONS}.get(name)
    try:
        takes = list(inspect.signature(factory).parameters) if options is None else option_names(options)
    except (TypeError, ValueError):  # what is no class, or one that says nothing of itself
        return "change the keys beside it"
    return f"it takes {', '.join(takes) or 'no options'}"


def _wrong_kind(key: str, name: str, made: object, method: str) -> NotMadeError:
    return NotMadeError(
        Finding(key, f"is {name!r}, a {type(made).__name__} without {method}", f"a class with {method}")
    )


def _key(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
