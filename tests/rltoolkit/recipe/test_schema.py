"""The schema agrees with what it describes."""

import inspect

import pytest

from reward_models import CountdownVerifier, DistinctSteps, LengthExploration, MathVerifier
from rltoolkit.recipe.known import known_keys
from rltoolkit.recipe.plugins import EXPLORATION_CLASSES, VERIFIER_CLASSES
from rltoolkit.recipe.problems import RefusedError
from rltoolkit.recipe.schema import EXPLORATIONS, PLUGIN_OPTIONS, VERIFIERS, template_fields


@pytest.mark.parametrize(
    ("section", "name", "made"),
    [
        (("rewards", "outcome"), "math", MathVerifier),
        (("rewards", "outcome"), "countdown", CountdownVerifier),
        (("rewards", "exploration"), "length", LengthExploration),
        (("rewards", "exploration"), "distinct_steps", DistinctSteps),
    ],
)
def test_options_are_those_of_the_constructor(section: tuple[str, ...], name: str, made: type) -> None:
    fields = PLUGIN_OPTIONS[section][1][name].model_fields
    parameters = inspect.signature(made).parameters
    assert list(fields) == list(parameters)
    for key, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty
        assert fields[key].is_required() is required
        assert required or fields[key].default == parameter.default


def test_every_name_has_a_class_and_options() -> None:
    assert set(VERIFIERS) == set(VERIFIER_CLASSES) == set(PLUGIN_OPTIONS["rewards", "outcome"][1])
    assert set(EXPLORATIONS) == {"none", *EXPLORATION_CLASSES} == set(PLUGIN_OPTIONS["rewards", "exploration"][1])


def test_known_keys_reach_into_every_section() -> None:
    keys = set(known_keys())
    expected = {"seed", "model.lora.r", "data.train.reference.pattern", "sft.data.completion", "launch.processes"}
    assert expected | {"rewards.outcome.box", "rewards.exploration.target_steps", "train.learning_rate"} <= keys


def test_templates() -> None:
    assert template_fields("{question}") == ("question",)
    assert template_fields("{a} and {b} and {a}, \\boxed{{}}") == ("a", "b")


@pytest.mark.parametrize("text", ["", "question", "{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a b}", "\\boxed{}"])
def test_what_is_no_template(text: str) -> None:
    with pytest.raises(RefusedError) as caught:
        template_fields(text)
    assert caught.value.remedy
