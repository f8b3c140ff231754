"""Read a recipe: file and overrides to a checked `Recipe`, or one error that lists every mistake."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rltoolkit.recipe.contradictions import RULES, Draft, Finding, Rule
from rltoolkit.recipe.known import known_keys
from rltoolkit.recipe.option_findings import option_findings
from rltoolkit.recipe.overrides import apply_overrides
from rltoolkit.recipe.plugin_options import PLUGIN_OPTIONS
from rltoolkit.recipe.problems import COMMAND_LINE, RecipeError, RecipeProblem, did_you_mean, suggestion
from rltoolkit.recipe.schema import METHODS, Recipe
from rltoolkit.recipe.translate import finding_of
from rltoolkit.recipe.yaml_source import KeyPath, read_yaml

# Stands in for required sections that are broken, so that the others can still be looked at; never shown.
_STAND_IN = {"method": next(iter(METHODS)), "model": {"name_or_path": "stand-in"}}


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and where every part of it came from.

    `lines` maps a key's path, such as ("rollout", "temperature"), to its line in the file; `overrides` maps
    the path of each key set on the command line to its text.
    """

    recipe: Recipe
    path: Path
    lines: Mapping[KeyPath, int]
    overrides: Mapping[KeyPath, str]

    def where(self, key: str) -> str:
        """The place to show for a dotted key: "recipes/x.yaml line 12", "command line", or the file alone."""
        return _where(tuple(key.split(".")), str(self.path), self.lines, self.overrides)

    def problem(self, finding: Finding) -> RecipeProblem:
        """A finding of a later check, with its place in this recipe."""
        where = self.where(finding.key)
        return RecipeProblem(where, finding.key, finding.found, finding.expected, finding.remedy)


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, rules: Sequence[Rule] = RULES) -> LoadedRecipe:
    """Read and check a recipe; `overrides` are texts such as "rollout.temperature=0.7".

    `rules` are the contradictions to look for: a command that uses only a part of a recipe may leave some out.

    Raises RecipeError with all mistakes of the recipe's own sections. `train:` is checked later, against
    the method's config class (`rltoolkit.recipe.train_section`). Nothing heavy is imported.
    """
    recipe_path = Path(path)
    source = read_yaml(_text_of(recipe_path), str(path))
    data = _only_text_keys(copy.deepcopy(source.data))
    problems = list(source.problems)
    set_here, refused = apply_overrides(data, overrides)
    problems += refused

    findings, bad = _schema_findings(data)
    plugin_findings = list(_plugin_findings(data, bad))
    draft = _draft(data, [*bad, *(tuple(f.key.split(".")) for f in plugin_findings)], recipe_path)
    for rule in rules:
        findings += [f for f in rule(draft) if not any(_touches(key, bad) for key in (f.key, *f.rests_on))]
    for finding in _without_echoes([*findings, *plugin_findings]):
        place = _where(tuple(finding.key.split(".")), str(path), source.lines, set_here)
        problems.append(RecipeProblem(place, finding.key, finding.found, finding.expected, finding.remedy))
    if problems:
        raise RecipeError(sorted(problems, key=_by_line))
    return LoadedRecipe(Recipe.model_validate(data), recipe_path, source.lines, set_here)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        beside = [str(other) for other in path.parent.glob("*.yaml")]
        remedy = did_you_mean(str(path), beside, "give the path of a YAML file")
        raise RecipeError([RecipeProblem(str(path), "", "no such file", remedy=remedy)]) from error
    except IsADirectoryError as error:
        raise RecipeError([RecipeProblem(str(path), "", "is a folder", "a YAML file")]) from error
    except UnicodeDecodeError as error:
        raise RecipeError([RecipeProblem(str(path), "", "is not UTF-8 text", remedy="save it as UTF-8")]) from error
    except OSError as error:
        raise RecipeError([RecipeProblem(str(path), "", f"cannot be read: {error.strerror}")]) from error


def _only_text_keys(value: Any) -> Any:
    """Drop keys that are no text: they are reported already, and nothing below can name them."""
    if isinstance(value, dict):
        return {key: _only_text_keys(item) for key, item in value.items() if isinstance(key, str)}
    return [_only_text_keys(item) for item in value] if isinstance(value, list) else value


def _where(path: KeyPath, name: str, lines: Mapping[KeyPath, int], overrides: Mapping[KeyPath, str]) -> str:
    """The place of a key, or of the nearest section around it."""
    if any(done[: len(path)] == path for done in overrides):
        return COMMAND_LINE
    for end in range(len(path), 0, -1):
        part = path[:end]
        # A section set as a whole on the command line hides the lines of the keys that stood in it.
        if any(part[: len(done)] == done for done in overrides):
            return COMMAND_LINE
        if part in lines:
            return f"{name} line {lines[part]}"
    return name


def _schema_findings(data: dict[str, Any]) -> tuple[list[Finding], list[KeyPath]]:
    """What pydantic refuses, in our words, and the paths it refused."""
    try:
        Recipe.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        found = [finding_of(detail, Recipe, known_keys()) for detail in details]
        return found, [tuple(str(part) for part in detail["loc"]) for detail in details]
    return [], []


def _plugin_findings(data: dict[str, Any], bad: Sequence[KeyPath]) -> Iterator[Finding]:
    """The options of verifiers and exploration rewards that we know by name."""
    for path, (key, options_of) in PLUGIN_OPTIONS.items():
        section = _at(data, path)
        if not isinstance(section, dict) or (*path, key) in bad or _paper_mode_needs_no_options(data, path):
            continue
        yield from option_findings(section, path, key, options_of)


def _paper_mode_needs_no_options(data: dict[str, Any], path: KeyPath) -> bool:
    """The paper's length reward has its own constant, so `{kind: length}` alone is complete there.

    What paper mode refuses by its kind needs no second complaint.
    """
    train, section = data.get("train"), _at(data, path)
    paper = isinstance(train, dict) and train.get("paper_compat") is True
    return paper and path == ("rewards", "exploration") and set(section) == {"kind"} and section["kind"] != "judge"


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _draft(data: dict[str, Any], bad: Sequence[KeyPath], recipe_path: Path) -> Draft:
    """Each section without its bad keys, as far as it still makes sense without them."""
    cleaned = copy.deepcopy(data)
    for path in bad:
        parent = _at(cleaned, path[:-1])
        if isinstance(parent, dict):
            parent.pop(path[-1], None)
    broken = _broken_sections(cleaned)
    good = {name: value for name, value in cleaned.items() if name in Recipe.model_fields and name not in broken}
    recipe = Recipe.model_validate({**_STAND_IN, **good})
    sections = {name: getattr(recipe, name) for name in Recipe.model_fields if name not in broken}
    return Draft(sections, frozenset(data), recipe_path)


def _broken_sections(data: dict[str, Any]) -> set[str]:
    """The sections that lack something they cannot do without."""
    try:
        Recipe.model_validate(data)
    except ValidationError as error:
        return {str(detail["loc"][0]) for detail in error.errors(include_url=False)}
    return set()


def _touches(key: str, bad: Sequence[KeyPath]) -> bool:
    path = tuple(key.split("."))
    return any(path[: len(one)] == one or one[: len(path)] == path for one in bad)


def _without_echoes(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out "missing" where a misspelt key beside it is reported with the very key as its suggestion."""
    remedies = {finding.remedy for finding in findings}
    return [f for f in findings if f.found != "missing" or suggestion(f.key) not in remedies]


def _by_line(problem: RecipeProblem) -> tuple[int, str]:
    line = problem.where.rpartition(" line ")[2]
    return (int(line) if line.isdigit() else 0, problem.key)
