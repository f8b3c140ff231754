"""From names to objects."""

from pathlib import Path

import pytest

from reward_models import CountdownVerifier, DistinctSteps, LengthExploration, MathVerifier
from rltoolkit.recipe import LoadedRecipe, RecipeError, load_recipe
from rltoolkit.recipe.plugins import make_exploration, make_verifier

TEXT = """\
method: rlsp
model: {name_or_path: some/model}
data: {train: {path: some/data, prompt: "{q}", reference: a}}
rewards: {outcome: {verifier: math}}
"""
PLUGIN = """\
class Mine:
    def __init__(self, *, word="x"):
        self.word = word
    def check(self, response, reference):
        return None
    def score(self, response, token_count):
        return 0.0
class Neither:
    pass
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_rewards_for_tests.py").write_text(PLUGIN)
    (tmp_path / "r.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p])

    def load_with(*overrides: str) -> LoadedRecipe:
        return load_recipe("r.yaml", overrides)

    return load_with


def test_ours_by_name_with_options(load) -> None:
    assert isinstance(make_verifier(load("rewards.outcome={verifier: countdown}")), CountdownVerifier)
    verifier = make_verifier(load("rewards.outcome={verifier: math, box: first}"))
    assert isinstance(verifier, MathVerifier)
    assert verifier.box == "first"
    length = make_exploration(load("rewards.exploration={kind: length, target_tokens: 7}"))
    assert isinstance(length, LengthExploration)
    assert length.target_tokens == 7
    steps = make_exploration(load("rewards.exploration={kind: distinct_steps, target_steps: 2, pattern: '='}"))
    assert isinstance(steps, DistinctSteps)


def test_no_exploration(load) -> None:
    assert make_exploration(load()) is None
    assert make_exploration(load("rewards.exploration={kind: none}")) is None
    # the paper's length term is the trainer's own
    paper = ["train.paper_compat=true", "rewards.exploration={kind: length, target_tokens: 7}"]
    assert make_exploration(load(*paper)) is None


def test_others_by_import_path_from_the_working_directory(load) -> None:
    mine = make_verifier(load("rewards.outcome={verifier: 'my_rewards_for_tests:Mine', word: y}"))
    assert vars(mine) == {"word": "y"}
    assert make_exploration(load("rewards.exploration={kind: 'my_rewards_for_tests:Mine'}")) is not None


@pytest.mark.parametrize(
    ("plugin", "key", "says"),
    [
        ("no_such_package.x:Mine", "rewards.outcome.verifier", "cannot be imported"),
        ("my_rewards_for_tests:Yours", "rewards.outcome.verifier", "has no Yours"),
        ("my_rewards_for_tests:Neither", "rewards.outcome.verifier", "a Neither without check"),
        ("my_rewards_for_tests:Mine, wort: y", "rewards.outcome", "refuses its options"),
    ],
)
def test_what_cannot_be_made(load, plugin: str, key: str, says: str) -> None:
    name, _, options = plugin.partition(", ")
    loaded = load(f"rewards.outcome={{verifier: '{name}'{', ' + options if options else ''}}}")
    with pytest.raises(RecipeError) as caught:
        make_verifier(loaded)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert problem.where == "command line"
    assert says in str(problem)


def test_an_exploration_reward_must_score(load) -> None:
    with pytest.raises(RecipeError, match="a Neither without score"):
        make_exploration(load("rewards.exploration={kind: 'my_rewards_for_tests:Neither'}"))
