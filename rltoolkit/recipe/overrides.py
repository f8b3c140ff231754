"""`section.key=value` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from rltoolkit.recipe.problems import COMMAND_LINE, RecipeProblem
from rltoolkit.recipe.yaml_source import KeyPath, parse_scalar


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[KeyPath, str], list[RecipeProblem]]:
    """Set each `section.key=value` in `data`; a later one wins over an earlier one."""
    done: dict[KeyPath, str] = {}
    problems: list[RecipeProblem] = []
    for text in overrides:
        key, equals, value_text = text.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            found = f"{text!r} is no override"
            problems.append(
                RecipeProblem(COMMAND_LINE, "", found, "section.key=value", "such as rollout.temperature=0.7")
            )
            continue
        try:
            value = parse_scalar(value_text)
        except (yaml.YAMLError, ValueError) as error:
            problems.append(
                RecipeProblem(
                    COMMAND_LINE, key, f"{value_text[:80]!r} is no YAML value", remedy=str(error).splitlines()[0]
                )
            )
            continue
        section: Any = data
        for depth, part in enumerate(path[:-1]):
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
            if not isinstance(section, dict):
                parent = ".".join(path[: depth + 1])
                problems.append(
                    RecipeProblem(COMMAND_LINE, key, f"{parent} is {section!r}", "a section", "set it as a whole")
                )
                break
        else:
            section[path[-1]] = value
            done[path] = value_text
    return done, problems
