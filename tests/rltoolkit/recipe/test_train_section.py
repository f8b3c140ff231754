"""The train section against real config classes: all mistakes together, with key, line and remedy."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from trl import SFTConfig

from rltoolkit.recipe import LoadedRecipe, RecipeError, load_recipe
from rltoolkit.recipe.train_ranges import OWNED_ELSEWHERE, RANGES
from rltoolkit.recipe.train_section import build_config
from rltoolkit.rlsp.config import RLSPConfig

TEXT = """\
method: rlsp
model: {name_or_path: "embedded:countdown"}
data: {train: {path: "embedded:countdown"}}
rewards: {outcome: {verifier: countdown}}
train:
  use_cpu: true
  bf16: false
"""


@pytest.fixture
def load(tmp_path: Path):
    def load_with(*overrides: str, text: str = TEXT) -> LoadedRecipe:
        path = tmp_path / "r.yaml"
        path.write_text(text)
        return load_recipe(path, overrides)

    return load_with


def refused(loaded: LoadedRecipe, cls: type = RLSPConfig) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        build_config(loaded, cls, fixed={"output_dir": "unused"})
    return {problem.key: str(problem) for problem in caught.value.problems}


def test_a_config_is_built_from_the_section_and_what_is_fixed(load) -> None:
    loaded = load("train.learning_rate=2e-7", "train.per_device_train_batch_size=4", "train.save_strategy=no")
    config = build_config(loaded, RLSPConfig, fixed={"output_dir": "unused", "temperature": 0.7, "seed": 5})
    assert (config.learning_rate, config.temperature, config.seed) == (2e-7, 0.7, 5)
    assert config.num_generations == 1


def test_all_mistakes_of_the_section_come_together(load) -> None:
    text = TEXT + (
        "  lerning_rate: 1\n  num_train_epochs: 0\n  gamma: 1.5\n  temperature: 1\n  max_steps: many\n"
        "  save_strategy: sometimes\n  per_device_train_batch_size: 0\n  optim: adamw_torhc\n  max_new_tokens: 3\n"
    )
    found = refused(load(text=text))
    assert list(found) == [
        "train.lerning_rate",
        "train.num_train_epochs",
        "train.gamma",
        "train.temperature",
        "train.max_steps",
        "train.save_strategy",
        "train.per_device_train_batch_size",
        "train.optim",
        "train.max_new_tokens",
    ]
    assert found["train.lerning_rate"].endswith("line 8: unknown key; did you mean train.learning_rate?")
    assert "is 1.5, expected a number >= 0 and <= 1" in found["train.gamma"]
    assert found["train.temperature"].endswith("set rollout.temperature")
    assert "is 'many', expected a whole number" in found["train.max_steps"]
    assert "expected one of no, steps, epoch, best" in found["train.save_strategy"]
    assert "did you mean adamw_torch?" in found["train.optim"]
    assert "did you mean rollout.max_new_tokens?" in found["train.max_new_tokens"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.use_cpu=1", "true or false"),
        ("train.max_steps=2.5", "a whole number"),
        ("train.max_steps=true", "a whole number"),
        ("train.learning_rate=fast", "a number"),
        ("train.learning_rate=true", "a number"),
        ("train.learning_rate=0", "a number > 0"),
        ("train.learning_rate=.inf", "a number > 0"),
        ("train.learning_rate=.nan", "a number > 0"),
        ("train.lr_scheduler_kwargs=3", "a section"),
        ("train.max_steps=0", "a number >= 1 (or -1 for off)"),
        ("train.gae_lambda=-0.1", "a number >= 0 and <= 1"),
        ("train.epsilon=0", "a number > 0 and < 1"),
        ("train.steps_per_generation=0", "a number >= 1"),
    ],
)
def test_types_and_ranges(load, override: str, expected: str) -> None:
    found = refused(load(override))
    key = override.partition("=")[0]
    assert list(found) == [key]
    assert f"expected {expected}" in found[key]
    assert " on the command line " in found[key]


@pytest.mark.parametrize("name", sorted(OWNED_ELSEWHERE))
def test_keys_of_other_sections_are_refused_with_the_right_key(load, name: str) -> None:
    found = refused(load(f"train.{name}=1"))
    assert list(found) == [f"train.{name}"]
    assert found[f"train.{name}"].endswith(f"belongs to another section; set {OWNED_ELSEWHERE[name]}")


def test_what_the_class_itself_refuses_is_shown_at_its_key(load) -> None:
    overrides = ["train.per_device_train_batch_size=4", "train.num_generations=3", "train.lerning_rate=1"]
    found = refused(load(*overrides))
    assert list(found) == ["train.lerning_rate", "train.num_generations"]
    assert "must be divisible by num_generations (3)" in found["train.num_generations"]


def test_the_class_is_not_heard_on_keys_that_are_wrong_already(load) -> None:
    # without use_cpu the class complains about bf16 and use_cpu, which was meant to be set
    found = refused(load("train.use_cpu=yes", "train.bf16=true"))
    assert list(found) == ["train.use_cpu"]


def test_sft_settings_come_from_either_section(load) -> None:
    sft = "method: sft\nmodel: {name_or_path: 'embedded:countdown'}\nsft: {data: {path: 'embedded:countdown'}}\n"
    fixed = {"output_dir": "unused", "use_cpu": True, "bf16": False}
    for section in ("train", "sft.train"):
        loaded = load(f"{section}.max_length=77", text=sft)
        assert build_config(loaded, SFTConfig, section="sft.train", fixed=fixed).max_length == 77
        with pytest.raises(RecipeError, match=rf"^{section}\.max_lenght on the command line: unknown key"):
            build_config(load(f"{section}.max_lenght=77", text=sft), SFTConfig, section="sft.train", fixed=fixed)


@dataclass
class Small:
    """A config class of another kind: what is read off it is not special to TRL."""

    output_dir: str = ""
    names: list[str] | None = None
    rate: float = 1.0
    hidden: int = field(default=0, init=False)


def test_any_dataclass_will_do(load) -> None:
    text = TEXT.partition("train:\n")[0]
    config = build_config(load("train.names=[a]", "train.rate=2", text=text), Small, fixed={"output_dir": "x"})
    assert config == Small("x", ["a"], 2)
    assert list(refused(load("train.hidden=1", "train.names=a", text=text), Small)) == ["train.hidden", "train.names"]


def test_the_tables_name_real_fields() -> None:
    """A field that TRL renames must not leave a range behind that checks nothing."""
    known = set(RLSPConfig.__dataclass_fields__) | set(SFTConfig.__dataclass_fields__)
    assert sorted(set(RANGES) - known) == []
    assert sorted(set(OWNED_ELSEWHERE) - known) == ["max_prompt_length"]
    assert not set(RANGES) & set(OWNED_ELSEWHERE)
