"""Who may import whom: a module may import its own floor and those below, a method never another method."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up. A prefix stands for a module and all below it; the longest prefix counts.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("reward_models",),
    ("rltoolkit.version", "rltoolkit.own_packages", "rltoolkit.errors", "rltoolkit.types"),
    ("rltoolkit.recipe",),
    ("rltoolkit.rollout", "rltoolkit.run", "rltoolkit.data", "rltoolkit.embedded"),
    ("rltoolkit.pairs", "rltoolkit.search", "rltoolkit.sft"),
    ("eval",),
    ("rltoolkit.phases",),
    ("rltoolkit.rlsp", "rltoolkit.inpo", "rltoolkit.cpl", "rltoolkit.self_tuning"),
    ("rltoolkit.train", "rltoolkit.cli", "rltoolkit.commands", "rltoolkit.check", "rltoolkit.__main__"),
)
METHODS = FLOORS[-2]
# A package's own __init__ only re-exports; `rltoolkit` itself is the version.
GROUND = {"rltoolkit": 1}
# These floors must start without torch: they serve --help, --version and recipe errors.
LIGHT = (
    "rltoolkit.recipe",
    "rltoolkit.errors",
    "rltoolkit.types",
    "rltoolkit.cli",
    "rltoolkit.train",
    "rltoolkit.version",
)
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "datasets",
    "pandas",
    "matplotlib",
    "sympy",
    "math_verify",
    "peft",
    "accelerate",
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in ("rltoolkit", "reward_models", "eval")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def floor_of(module):
    if module in GROUND:
        return GROUND[module]
    found = [
        (len(prefix), floor)
        for floor, prefixes in enumerate(FLOORS)
        for prefix in prefixes
        if module == prefix or module.startswith(prefix + ".")
    ]
    assert found, f"{module} stands on no floor; add it to FLOORS"
    return max(found)[1]


def imports_of(path, *, top_level_only=False):
    """Modules of this project and others that a file imports; those under TYPE_CHECKING are no imports at all."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        node
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for statement in test.body
        for node in ast.walk(statement)
    }
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (names & MODULES.keys()) or {node.module}


def own(modules):
    return [module for module in modules if module.split(".")[0] in ("rltoolkit", "reward_models", "eval")]


def test_modules_were_found():
    assert len(MODULES) > 50


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_or_stay(module):
    for imported in own(imports_of(MODULES[module])):
        assert floor_of(imported) <= floor_of(module), f"{module} imports {imported}, which stands above it"


def test_no_method_imports_another():
    for module, path in MODULES.items():
        mine = [method for method in METHODS if module.startswith(method)]
        for imported in own(imports_of(path)):
            other = [method for method in METHODS if imported.startswith(method)]
            assert not mine or not other or mine == other, f"{module} imports {imported}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(LIGHT)])
def test_light_modules_import_nothing_heavy(module):
    found = {name.split(".")[0] for name in imports_of(MODULES[module], top_level_only=True)} & HEAVY
    assert not found


def test_private_names_of_the_stack_stay_in_trainer_modules_and_rollout():
    allowed = ("rltoolkit.rlsp", "rltoolkit.sft", "rltoolkit.rollout", "rltoolkit.pairs")
    for module, path in MODULES.items():
        if module.startswith(allowed):
            continue
        inner = [name for name in imports_of(path) if name.startswith(("trl.trainer.", "trl.experimental", "vllm."))]
        assert not inner, f"{module} imports {inner}"


def test_nothing_experimental_is_used():
    for module, path in MODULES.items():
        assert not [name for name in imports_of(path) if name.startswith("trl.experimental")], module
