"""The schema agrees with what it describes."""

import inspect

import pytest
from pydantic import ValidationError

from reward_models.judge import JudgeSettings
from reward_models.pool import VerifierPool
from rltoolkit.recipe.known import known_keys
from rltoolkit.recipe.plugin_options import EXPLORATION_OPTIONS, PLUGIN_OPTIONS, VERIFIER_OPTIONS, option_names
from rltoolkit.recipe.plugins import EXPLORATION_CLASSES, VERIFIER_CLASSES
from rltoolkit.recipe.problems import RefusedError
from rltoolkit.recipe.schema import EXPLORATIONS, VERIFIERS, PoolSection, template_fields

CLASSES = {**VERIFIER_CLASSES, **EXPLORATION_CLASSES}
OPTIONS = {**VERIFIER_OPTIONS, **EXPLORATION_OPTIONS}


def test_the_pool_section_is_what_a_pool_takes() -> None:
    parameters = dict(inspect.signature(VerifierPool).parameters)
    parameters.pop("verifier")
    assert PoolSection().model_dump() == {name: one.default for name, one in parameters.items()}


@pytest.mark.parametrize("key", ["workers", "timeout_s", "memory_mb", "start_timeout_s"])
@pytest.mark.parametrize("value", [0, -1, 10**15, "2", True])
def test_a_pool_that_cannot_be(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        PoolSection.model_validate({key: value})


@pytest.mark.parametrize("name", CLASSES)
def test_options_are_those_of_the_constructor(name: str) -> None:
    fields = dict(zip(option_names(OPTIONS[name]), OPTIONS[name].model_fields.values(), strict=True))
    parameters = dict(inspect.signature(CLASSES[name]).parameters)
    if parameters.pop("settings", None):  # the judge's, handed on
        parameters = {**inspect.signature(JudgeSettings).parameters, **parameters}
    assert list(fields) == list(parameters)
    for key, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty
        assert fields[key].is_required() is required
        assert required or fields[key].default == parameter.default


def test_every_name_has_a_class_and_options() -> None:
    assert list(VERIFIERS) == list(VERIFIER_CLASSES) == list(PLUGIN_OPTIONS["rewards", "outcome"][1])
    assert list(EXPLORATIONS) == ["none", *EXPLORATION_CLASSES] == list(PLUGIN_OPTIONS["rewards", "exploration"][1])
    assert len(VERIFIERS) == 10


def test_known_keys_reach_into_every_section() -> None:
    keys = set(known_keys())
    expected = {"seed", "model.lora.r", "data.train.reference.pattern", "sft.data.completion", "launch.processes"}
    assert expected | {"rewards.outcome.box", "rewards.exploration.target_steps", "rewards.outcome.schema"} <= keys


def test_templates() -> None:
    assert template_fields("{question}") == ("question",)
    assert template_fields("{a} and {b} and {a}, \\boxed{{}}") == ("a", "b")


@pytest.mark.parametrize("text", ["", "question", "{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a b}", "\\boxed{}"])
def test_what_is_no_template(text: str) -> None:
    with pytest.raises(RefusedError) as caught:
        template_fields(text)
    assert caught.value.remedy
