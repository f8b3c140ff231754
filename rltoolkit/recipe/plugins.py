"""From a name in a recipe to the object: verifiers and exploration rewards, ours by name, others by import path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reward_models import CountdownVerifier, DistinctSteps, LengthExploration, MathVerifier
from reward_models.exploration import ExplorationReward
from reward_models.verdict import Verifier
from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.problems import RecipeError, RefusedError
from rltoolkit.recipe.schema import Plugin

VERIFIER_CLASSES: Mapping[str, Callable[..., Verifier]] = {"math": MathVerifier, "countdown": CountdownVerifier}
EXPLORATION_CLASSES: Mapping[str, Callable[..., ExplorationReward]] = {
    "length": LengthExploration,
    "distinct_steps": DistinctSteps,
}


def make_verifier(loaded: LoadedRecipe) -> Verifier:
    """The verifier of `rewards.outcome`; raises RecipeError where it cannot be made."""
    rewards = loaded.recipe.rewards
    if rewards is None:
        raise RecipeError([loaded.problem(Finding("rewards.outcome", "missing", remedy="name a verifier"))])
    name, section = rewards.outcome.verifier, rewards.outcome
    if name == "math" and loaded.recipe.train.get("paper_compat") is True and "box" not in section.options:
        section = section.model_copy(update={"box": "first"})  # as released; the length term reads that box, too
    made = _make(loaded, "rewards.outcome", "verifier", name, section, VERIFIER_CLASSES)
    if not isinstance(made, Verifier):
        raise _wrong_kind(loaded, "rewards.outcome.verifier", name, made, "check(response, reference)")
    return made


def make_exploration(loaded: LoadedRecipe) -> ExplorationReward | None:
    """The exploration reward of the recipe, None for `none`; raises RecipeError where it cannot be made.

    In paper mode `length` is the trainer's own -C/L, so there is no object for it either.
    """
    rewards = loaded.recipe.rewards
    section = None if rewards is None else rewards.exploration
    if section is None or section.kind == "none" or loaded.recipe.train.get("paper_compat") is True:
        return None
    made = _make(loaded, "rewards.exploration", "kind", section.kind, section, EXPLORATION_CLASSES)
    if not isinstance(made, ExplorationReward):
        method = "score(response, token_count)"
        raise _wrong_kind(loaded, "rewards.exploration.kind", section.kind, made, method)
    return made


def import_object(path: str) -> Any:
    """What `package.module:Name` names; raises RefusedError with what went wrong.

    The working directory is searched last, so that a file beside the recipe's start is found and hides nothing.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        remedy = "install it, or start from the folder that holds it"
        raise RefusedError(f"is {path!r}, which cannot be imported ({error})", remedy=remedy) from error
    if not hasattr(module, name):
        raise RefusedError(f"is {path!r}, but {module_name} has no {name}", remedy="check the name after the colon")
    return getattr(module, name)


def _make(
    loaded: LoadedRecipe, section: str, key: str, name: str, plugin: Plugin, known: Mapping[str, Callable[..., Any]]
) -> Any:
    try:
        factory = known[name] if name in known else import_object(name)
    except RefusedError as refusal:
        finding = Finding(f"{section}.{key}", refusal.found, refusal.expected, refusal.remedy)
        raise RecipeError([loaded.problem(finding)]) from refusal
    try:
        return factory(**plugin.options)
    except (TypeError, ValueError) as error:
        finding = Finding(section, f"{name} refuses its options: {error}", remedy="change the keys beside it")
        raise RecipeError([loaded.problem(finding)]) from error


def _wrong_kind(loaded: LoadedRecipe, key: str, name: str, made: object, method: str) -> RecipeError:
    finding = Finding(key, f"is {name!r}, a {type(made).__name__} without {method}", f"a class with {method}")
    return RecipeError([loaded.problem(finding)])
