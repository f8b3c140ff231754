"""How mistakes are said, and which key was meant."""

import pickle

import pytest

from rltoolkit.recipe.problems import RecipeError, RecipeProblem, nearest_key


def test_the_forms_of_a_message() -> None:
    value = RecipeProblem("r.yaml line 12", "reward.timeout_s", "is 0", "a number > 0", "give seconds > 0")
    assert str(value) == "reward.timeout_s in r.yaml line 12 is 0, expected a number > 0; give seconds > 0"
    key = RecipeProblem("command line", "rollout.x", "unknown key", remedy="did you mean rollout.y?")
    assert str(key) == "rollout.x on the command line: unknown key; did you mean rollout.y?"
    assert str(RecipeProblem("r.yaml", "", "is empty")) == "r.yaml is empty"


def test_one_mistake_is_said_in_one_line_and_several_are_counted() -> None:
    problem = RecipeProblem("r.yaml line 1", "seed", "is -1", "a value >= 0")
    assert str(RecipeError([problem])) == str(problem)
    assert str(RecipeError([problem, problem])).startswith("2 mistakes in the recipe:\n  - seed in r.yaml line 1")


def test_the_error_survives_a_pickle() -> None:
    error = RecipeError([RecipeProblem("r.yaml line 1", "seed", "is -1", "a value >= 0")])
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


KNOWN = ("rollout.temperature", "rollout.top_p", "train.learning_rate", "train.critic_learning_rate", "seed")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("rollout.temprature", "rollout.temperature"),
        ("train.temperature", "rollout.temperature"),
        ("temperature", "rollout.temperature"),
        ("learning_rate", "train.learning_rate"),
        ("rollout.lerning_rate", "train.learning_rate"),
        ("train.critic_lerning_rate", "train.critic_learning_rate"),
        ("sede", "seed"),
        ("banana", None),
    ],
)
def test_the_nearest_key(wrong: str, right: str | None) -> None:
    assert nearest_key(wrong, KNOWN) == right


def test_the_same_section_wins_a_tie() -> None:
    assert nearest_key("sft.limt", ["data.limit", "sft.limit"]) == "sft.limit"
    assert nearest_key("data.limt", ["data.limit", "sft.limit"]) == "data.limit"


def test_nothing_known_suggests_nothing() -> None:
    assert nearest_key("a", []) is None
