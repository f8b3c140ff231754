"""YAML text to plain data, with the line of every key.

Scalars are read by the rules of YAML 1.2, not 1.1: `2e-7` is a number, `no` and `on` are words (TRL has
options such as `save_strategy: no`), `1:30` and `2024-01-01` are text. Only `true` and `false` are truth
values. A key given twice is a mistake here, where YAML libraries keep the last one silently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from rltoolkit.recipe.problems import RecipeError, RecipeProblem

KeyPath = tuple[str, ...]
MAX_NESTING = 100


@dataclass(frozen=True)
class YamlSource:
    """Plain data, the line of every key (from 1), and the mistakes seen on the way."""

    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: tuple[RecipeProblem, ...] = ()


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar rules of YAML 1.2's core schema, and with a limit to nesting."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # yaml's own name
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse what yaml itself and the checks of a recipe, which call themselves for each level, could not hold."""
        if self.depth >= MAX_NESTING:
            problem = f"nested more than {MAX_NESTING} deep"
            raise yaml.composer.ComposerError(None, None, problem, None if parent is None else parent.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_DIGITS = list("-+0123456789.")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, _DIGITS)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, _DIGITS)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^(?:<<)$"), ["<"])


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    """YAML 1.2 integers: a leading zero is decimal, 0o and 0x say what they are."""
    text = loader.construct_scalar(node)
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text, 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def parse_scalar(text: str) -> Any:
    """The value of one override, read as YAML: `3` -> 3, `2e-7` -> 2e-07, `[a, b]` -> a list, "" -> None."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def read_yaml(text: str, name: str) -> YamlSource:
    """Parse a recipe's text; `name` is what messages call the file.

    Raises RecipeError when there is nothing to go on with: a syntax error, or no mapping at the top.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise RecipeError([RecipeProblem(name, "", "is empty", "a recipe with method, model and data")])
        if not isinstance(node, yaml.MappingNode):
            found = f"is a {_kind(node)} at the top"
            raise RecipeError([RecipeProblem(_at(name, node), "", found, "sections such as `method: rlsp`")])
        walk = _Walk(name)
        walk.mapping(node, (), ())
        data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise RecipeError([_syntax_problem(name, error)]) from error
    except yaml.YAMLError as error:
        raise RecipeError([RecipeProblem(name, "", f"cannot be read as YAML: {error}")]) from error
    except ValueError as error:  # a number or tag that the constructor cannot make
        raise RecipeError([RecipeProblem(name, "", f"holds a value that cannot be read: {error}")]) from error
    finally:
        loader.dispose()
    return YamlSource(data, walk.lines, tuple(walk.problems))


def _kind(node: yaml.Node) -> str:
    return {yaml.ScalarNode: "single value", yaml.SequenceNode: "list"}.get(type(node), "section")


def _at(name: str, node: yaml.Node) -> str:
    return f"{name} line {node.start_mark.line + 1}"


def _syntax_problem(name: str, error: yaml.MarkedYAMLError) -> RecipeProblem:
    mark = error.problem_mark or error.context_mark
    where = f"{name} line {mark.line + 1}" if mark is not None else name
    what = ", ".join(part for part in (error.context, error.problem) if part)
    remedy = "check indentation, colons and quotes there; a text with `: ` or `{` in it needs quotes"
    return RecipeProblem(where, "", f"cannot be read as YAML: {what}", remedy=remedy)


class _Walk:
    """Collects the line of every key, keys given twice, and keys that are no text."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[RecipeProblem] = []

    def mapping(self, node: yaml.MappingNode, path: KeyPath, parents: tuple[int, ...]) -> None:
        if id(node) in parents:
            raise RecipeError(
                [RecipeProblem(_at(self.name, node), ".".join(path), "contains itself", remedy="remove the alias")]
            )
        first: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                self.value(value, path, (*parents, id(node)))
                continue
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else _kind(key)
                self.problems.append(
                    RecipeProblem(
                        _at(self.name, key),
                        ".".join((*path, str(shown))),
                        "is no text",
                        "a name as the key",
                        "put it in quotes",
                    )
                )
                continue
            here = (*path, key.value)
            if key.value in first:
                found = f"given twice, first in line {first[key.value]}"
                self.problems.append(
                    RecipeProblem(_at(self.name, key), ".".join(here), found, remedy="keep one of them")
                )
            first.setdefault(key.value, line)
            self.lines[here] = line
            self.value(value, here, (*parents, id(node)))

    def value(self, node: yaml.Node, path: KeyPath, parents: tuple[int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            self.mapping(node, path, parents)
        elif isinstance(node, yaml.SequenceNode):
            if id(node) in parents:
                raise RecipeError(
                    [RecipeProblem(_at(self.name, node), ".".join(path), "contains itself", remedy="remove the alias")]
                )
            for index, item in enumerate(node.value):
                self.lines.setdefault((*path, str(index)), item.start_mark.line + 1)
                self.value(item, (*path, str(index)), (*parents, id(node)))
