"""From names to objects."""

import sys
from pathlib import Path

import pytest

from reward_models import CountdownVerifier, DistinctSteps, LengthExploration, MathVerifier
from reward_models.combine import AllOf, AnyOf
from reward_models.judge import EFFORT
from reward_models.judged_effort import JudgedEffort
from reward_models.numeric import NumericVerifier
from rltoolkit.recipe import LoadedRecipe, RecipeError, load_recipe
from rltoolkit.recipe.plugins import VERIFIER_CLASSES, make_exploration, make_verifier

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
OBJECT = Mine()
class Fails:
    def __init__(self):
        {}["a"]
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_rewards_for_tests.py").write_text(PLUGIN)
    (tmp_path / "broken_for_tests.py").write_text("def f(:\n")
    (tmp_path / "failing_for_tests.py").write_text("1 / 0\n")
    (tmp_path / "r.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in sys.path if p])

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
    assert (length.repetition_penalty, steps.repetition_penalty) == (0.0, 0.0)


@pytest.mark.parametrize("section", ["kind: length, target_tokens: 7", "kind: distinct_steps, target_steps: 2"])
def test_a_penalty_for_repetition(load, section) -> None:
    made = make_exploration(load(f"rewards.exploration={{{section}, repetition_penalty: 0.5}}"))
    assert made.score("again\n" * 100, 7) < 0.6 * make_exploration(load(f"rewards.exploration={{{section}}}")).score(
        "a\nb", 7
    )
    with pytest.raises(RecipeError, match=r"repetition_penalty .* is 1\.5, expected a value <= 1"):
        load(f"rewards.exploration={{{section}, repetition_penalty: 1.5}}")


def test_every_name_makes_its_class(load) -> None:
    options = {"all_of": "verifiers: [{verifier: integer}]", "any_of": "verifiers: [{verifier: integer}]"}
    for name, kind in VERIFIER_CLASSES.items():
        made = make_verifier(load(f"rewards.outcome={{verifier: {name}, {options.get(name, '')}}}"))
        assert type(made) is kind


def test_combinations(load) -> None:
    inner = "{verifier: numeric, rel_tol: 0.1}, {verifier: 'my_rewards_for_tests:Mine', word: y}"
    made = make_verifier(
        load(f"rewards.outcome={{verifier: all_of, verifiers: [{{verifier: any_of, verifiers: [{inner}]}}]}}")
    )
    assert isinstance(made, AllOf)
    (either,) = made.verifiers
    assert isinstance(either, AnyOf)
    numeric, mine = either.verifiers
    assert isinstance(numeric, NumericVerifier)
    assert numeric.rel_tol == 0.1
    assert vars(mine) == {"word": "y"}


def test_paper_mode_reads_the_first_box(load) -> None:
    assert make_verifier(load("train.paper_compat=true")).box == "first"
    assert make_verifier(load("train.paper_compat=true", "rewards.outcome={verifier: math, box: last}")).box == "last"


def test_paper_mode_reads_the_first_box_within_combinations(load) -> None:
    inner = "{verifier: math}, {verifier: integer}, {verifier: any_of, verifiers: [{verifier: math}]}"
    outcome = f"rewards.outcome={{verifier: all_of, verifiers: [{inner}, {{verifier: math, box: last}}]}}"
    math, _, either, last = make_verifier(load("train.paper_compat=true", outcome)).verifiers
    assert [math.box, either.verifiers[0].box, last.box] == ["first", "first", "last"]
    assert make_verifier(load(outcome)).verifiers[0].box == "last"


def test_no_exploration(load) -> None:
    assert make_exploration(load()) is None
    assert make_exploration(load("rewards.exploration={kind: none}")) is None
    # the paper's length term is the trainer's own
    paper = ["train.paper_compat=true", "rewards.exploration={kind: length, target_tokens: 7}"]
    assert make_exploration(load(*paper)) is None


JUDGE = "rewards.exploration={kind: judge, model: small, base_url: 'http://localhost:8000/v1', concurrency: 3}"


def test_a_judge_pays_for_effort_in_both_modes(load, monkeypatch) -> None:
    for mode in ([], ["train.paper_compat=true"]):
        judged = make_exploration(load(JUDGE, *mode))
        assert isinstance(judged, JudgedEffort)
        assert judged.judge.settings.concurrency == 3
        assert judged.criterion == EFFORT
    other = make_exploration(load(JUDGE, "rewards.exploration.criterion=How funny is it?"))
    assert isinstance(other, JudgedEffort)
    assert other.criterion == "How funny is it?"


def test_what_a_judge_lacks_is_said_before_training(load, monkeypatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(RecipeError, match="NO_SUCH_KEY, which is not set"):
        make_exploration(load(JUDGE, "rewards.exploration.api_key_env=NO_SUCH_KEY"))
    with pytest.raises(RecipeError, match=r"total_timeout_s is 300\.0 and timeout_s 400"):
        make_exploration(load(JUDGE, "rewards.exploration.timeout_s=400"))
    two = load(JUDGE, "rewards.exploration.price_per_million_in=1", "rewards.exploration.timeout_s=400")
    with pytest.raises(RecipeError, match=r"give both or none; it takes model, base_url, .*, criterion$") as refusal:
        make_exploration(two)
    assert "timeout_s 400" in str(refusal.value)
    with pytest.raises(RecipeError, match=r"rewards\.exploration\.model"):
        load("rewards.exploration={kind: judge}", "train.paper_compat=true")
    with pytest.raises(RecipeError, match=r"rewards\.exploration\.max_retries"):
        load(JUDGE, "rewards.exploration.max_retries=-1")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(RecipeError, match=r"pip install rltoolkit\[judge\]"):
        make_exploration(load(JUDGE))


def test_others_by_import_path_from_the_working_directory(load) -> None:
    mine = make_verifier(load("rewards.outcome={verifier: 'my_rewards_for_tests:Mine', word: y}"))
    assert vars(mine) == {"word": "y"}
    assert make_exploration(load("rewards.exploration={kind: 'my_rewards_for_tests:Mine'}")) is not None


def test_others_by_import_path_from_the_folder_of_the_recipe(load, tmp_path: Path, monkeypatch) -> None:
    """But a module that is found without it goes first: the folder hides nothing."""
    folder, start = tmp_path / "recipes", tmp_path / "start"
    folder.mkdir()
    start.mkdir()
    for name in ("verifier_beside_the_recipe", "verifier_in_both"):
        (folder / f"{name}.py").write_text(PLUGIN)
    (start / "verifier_in_both.py").write_text(PLUGIN.replace('word="x"', 'word="start"'))
    (folder / "r.yaml").write_text(TEXT)
    monkeypatch.chdir(start)
    monkeypatch.setattr("sys.path", list(sys.path))
    for name, word in (("verifier_beside_the_recipe", "x"), ("verifier_in_both", "start")):
        loaded = load_recipe("../recipes/r.yaml", [f"rewards.outcome={{verifier: '{name}:Mine'}}"])
        assert vars(make_verifier(loaded)) == {"word": word}


@pytest.mark.parametrize(
    ("plugin", "key", "says"),
    [
        ("no_such_package.x:Mine", "rewards.outcome.verifier", "cannot be imported"),
        ("my_rewards_for_tests:Yours", "rewards.outcome.verifier", "has no Yours"),
        ("my_rewards_for_tests:Neither", "rewards.outcome.verifier", "a Neither without check"),
        ("my_rewards_for_tests:Mine, wort: y", "rewards.outcome", "refuses its options"),
        ("my_rewards_for_tests:Mine, wort: y", "rewards.outcome", "it takes word"),
        ("my_rewards_for_tests.py:Mine", "rewards.outcome.verifier", "name the module: my_rewards_for_tests:Mine"),
        (
            "my_rewards_for_tests:OBJECT",
            "rewards.outcome.verifier",
            "is 'my_rewards_for_tests:OBJECT', a Mine, expected a",
        ),
        ("my_rewards_for_tests:Fails", "rewards.outcome", "refuses its options: KeyError: 'a'"),
        ("broken_for_tests:Mine", "rewards.outcome.verifier", "cannot be imported (SyntaxError"),
        ("failing_for_tests:Mine", "rewards.outcome.verifier", "cannot be imported (ZeroDivisionError"),
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


def test_what_cannot_be_made_inside_a_combination_is_named_with_its_place(load) -> None:
    inner = "[{verifier: math}, {verifier: 'no_such_package.x:Mine'}]"
    with pytest.raises(RecipeError, match=r"rewards\.outcome\.verifiers\.1\.verifier on the command line is 'no_such"):
        make_verifier(load(f"rewards.outcome={{verifier: any_of, verifiers: {inner}}}"))


def test_an_exploration_reward_must_score(load) -> None:
    with pytest.raises(RecipeError, match="a Neither without score"):
        make_exploration(load("rewards.exploration={kind: 'my_rewards_for_tests:Neither'}"))
