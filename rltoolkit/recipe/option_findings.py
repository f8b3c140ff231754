"""What is wrong with the options beside a verifier or an exploration reward that is ours by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.plugin_options import CombinationOptions, OptionsOf, option_names
from rltoolkit.recipe.problems import did_you_mean
from rltoolkit.recipe.translate import finding_of
from rltoolkit.recipe.yaml_source import KeyPath


def option_findings(section: Mapping[str, Any], path: KeyPath, key: str, options_of: OptionsOf) -> Iterator[Finding]:
    """Look at the keys of `section` beside `key`, which names one of `options_of`; combinations are looked into.

    `path` is where the section stands. Nothing is found wrong with a name that is not among `options_of`.
    """
    name = section.get(key)
    if not isinstance(name, str) or name not in options_of:
        return
    options_class = options_of[name]
    options = {option: value for option, value in section.items() if option != key}
    try:
        options_class.model_validate(options)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            finding = finding_of(detail, options_class, [])
            finding = replace(finding, key=".".join((*path, finding.key)))
            if detail["type"] == "extra_forbidden":
                names = option_names(options_class)
                otherwise = f"{name} takes {', '.join(names) or 'no options'}"
                finding = replace(
                    finding, remedy=did_you_mean(finding.key, [".".join((*path, one)) for one in names], otherwise)
                )
            yield finding
    if options_class is CombinationOptions and isinstance(options.get("verifiers"), list | tuple):
        for index, inner in enumerate(options["verifiers"]):
            if isinstance(inner, Mapping):
                yield from option_findings(inner, (*path, "verifiers", str(index)), key, options_of)
