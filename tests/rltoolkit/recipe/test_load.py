"""Reading recipes: everything that is wrong, in one answer, with key, line and remedy."""

import subprocess
import sys
from pathlib import Path

import pytest

from rltoolkit.recipe import LoadedRecipe, RecipeError, RecipeProblem, load_recipe

GOOD = """\
method: rlsp
model: {name_or_path: "embedded:countdown"}
data:
  train: {path: "embedded:countdown"}
rewards:
  outcome: {verifier: countdown}
  exploration: {kind: length, target_tokens: 40}
rollout:
  temperature: 1
train: {learning_rate: 2e-7, use_cpu: true}
"""


@pytest.fixture
def write(tmp_path: Path):
    def write_text(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def problems(path: Path, overrides: list[str] | None = None) -> dict[str, RecipeProblem]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides or [])
    keys = [problem.key for problem in caught.value.problems]
    assert len(keys) == len(set(keys)), "a key is reported twice"
    return {problem.key: problem for problem in caught.value.problems}


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_recipe_loads_with_defaults(write) -> None:
    loaded = load_recipe(write(GOOD))
    assert isinstance(loaded, LoadedRecipe)
    assert loaded.recipe.rollout.temperature == 1.0
    assert loaded.recipe.rollout.max_new_tokens == 256
    assert loaded.recipe.rewards is not None
    assert loaded.recipe.rewards.exploration is not None
    assert loaded.recipe.rewards.exploration.options == {"target_tokens": 40}
    assert loaded.recipe.train == {"learning_rate": 2e-7, "use_cpu": True}


def test_a_number_without_a_point_is_a_number(write) -> None:
    # YAML 1.1 reads 2e-7 as text; a learning rate must not depend on that
    assert load_recipe(write(GOOD), ["train.learning_rate=3e-6"]).recipe.train["learning_rate"] == 3e-6


def test_the_form_of_a_message(write) -> None:
    path = write(changed("temperature: 1", "temprature: 1"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value) == (f"rollout.temprature in {path} line 9: unknown key; did you mean rollout.temperature?")


def test_a_wrong_value_is_shown_with_what_is_expected(write) -> None:
    found = problems(write(GOOD + "seed: -1\n"))["seed"]
    assert (found.found, found.expected) == ("is -1", "a value >= 0")
    assert found.where.endswith("line 11")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("rollout.temprature", "rollout.temperature"),
        ("rollout.max_new_token", "rollout.max_new_tokens"),
        ("rollout.learning_rate", "train.learning_rate"),
        ("rewards.timeout_s", "rewards.pool.timeout_s"),
        ("model.rank", None),
        ("max_new_tokens", "rollout.max_new_tokens"),
        ("data.train.referense", "data.train.reference"),
        ("rewards.exploration.target_token", "rewards.exploration.target_tokens"),
        ("zzzzzz", None),
    ],
)
def test_an_unknown_key_suggests_the_nearest(write, wrong: str, right: str | None) -> None:
    found = problems(write(GOOD), [f"{wrong}=1"])[wrong]
    assert found.found == "unknown key"
    if right is None:
        assert "did you mean" not in found.remedy or wrong.startswith("model")
    else:
        assert found.remedy == f"did you mean {right}?"


def test_all_mistakes_come_together(write) -> None:
    text = """\
method: rlsq
model: {name_or_path: ./nope, dtype: float33, lora: {rank: 3}}
data:
  train: {path: data/x.jsonl, prompt: "{problem", referense: answer, limit: true}
rewards:
  outcome: {verifier: maths}
  exploration: {kind: length}
  pool: {timeout_s: 0}
rollout: {top_p: 2}
launch: {accelerate_config: nowhere.yaml}
"""
    assert set(problems(write(text), ["rollout.top_k=-1", "seed=x"])) == {
        "method",
        "model.name_or_path",
        "model.dtype",
        "model.lora.rank",
        "data.train.path",
        "data.train.prompt",
        "data.train.referense",
        "data.train.limit",
        "rewards.outcome.verifier",
        "rewards.exploration.target_tokens",
        "rewards.pool.timeout_s",
        "rollout.top_p",
        "rollout.top_k",
        "launch.accelerate_config",
        "seed",
    }


def test_mistakes_are_ordered_by_line(write) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("seed: -1\nmethods: 3\n" + changed("temperature: 1", "temperature: -1")), ["eval=3"])
    assert [problem.key for problem in caught.value.problems] == ["eval", "seed", "methods", "rollout.temperature"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "is a list at the top"),
        ("just text\n", "is a single value at the top"),
        ("method: [rlsp\n", "cannot be read as YAML"),
        ("a: b: c\n", "cannot be read as YAML"),
        ("\tmethod: rlsp\n", "cannot be read as YAML"),
        ("method: *nothing\n", "cannot be read as YAML"),
        ("method: !!python/object:os.system x\n", "cannot be read as YAML"),
        ("train: &t\n  a: *t\n", "contains itself"),
        ("train: " + "[" * 1000 + "]" * 1000, "line 1: cannot be read as YAML: nested more than 100 deep"),
        ("train: " + "{a: " * 150 + "1" + "}" * 150, "nested more than 100 deep"),
    ],
)
def test_text_that_is_no_recipe(write, text: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(text))
    assert says in str(caught.value)


def test_a_key_given_twice_is_refused_with_both_lines(write) -> None:
    found = problems(write(GOOD + "seed: 1\nseed: 2\n"))["seed"]
    assert found.found == "given twice, first in line 11"
    assert found.where.endswith("line 12")


def test_a_key_that_is_no_text_is_refused(write) -> None:
    found = problems(write(GOOD + "3: x\n"))["3"]
    assert found.found == "is no text"


def test_anchors_and_merges_work_and_keep_their_lines(write) -> None:
    text = changed("rollout:\n  temperature: 1\n", "rollout: &r\n  temperature: 1\neval: {max_new_tokens: 9}\n")
    loaded = load_recipe(write(text))
    assert loaded.where("rollout.temperature").endswith("line 9")


@pytest.mark.parametrize(("value", "expected"), [("yes", "yes"), ("no", "no"), ("on", "on"), ("1:30", "1:30")])
def test_words_stay_words(write, value: str, expected: str) -> None:
    # save_strategy: no is an option of the Trainer, not a truth value
    assert load_recipe(write(GOOD), [f"train.save_strategy={value}"]).recipe.train["save_strategy"] == expected


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=true", "seed"),
        ("seed=1.0", "seed"),
        ("seed='1'", "seed"),
        ("rollout.top_k=true", "rollout.top_k"),
        ("rollout.temperature=true", "rollout.temperature"),
        ("rollout.temperature='1'", "rollout.temperature"),
        ("rollout.temperature=.nan", "rollout.temperature"),
        ("rollout.temperature=.inf", "rollout.temperature"),
        ("rollout=3", "rollout"),
        ("train=3", "train"),
        ("model.name_or_path=5", "model.name_or_path"),
        ("model.name_or_path=", "model.name_or_path"),
        ("model.name_or_path=' '", "model.name_or_path"),
        ("eval.tasks=countdown", "eval.tasks"),
        ("model.lora.target_modules=[]", "model.lora.target_modules"),
        ("data.train.prompt=question", "data.train.prompt"),
        ("data.train.prompt='{}'", "data.train.prompt"),
        ("data.train.prompt='{a.b}'", "data.train.prompt"),
        ("data.train.reference={column: a, pattern: '('}", "data.train.reference.pattern"),
        ("data.train.reference={column: a, pattern: 'a'}", "data.train.reference.pattern"),
        ("rewards.outcome.extraction=boxed", "rewards.outcome.extraction"),
        ("rewards.outcome.verifier=math:", "rewards.outcome.verifier"),
        ("data.train.path=embedded:countdwn", "data.train.path"),
        ("data.train={path: missing.csv, prompt: '{q}', reference: a}", "data.train.path"),
        ("data.train={path: '$" + "{NOT_SET}/x.jsonl', prompt: '{q}', reference: a}", "data.train.path"),
        ("model.name_or_path=../missing", "model.name_or_path"),
    ],
)
def test_one_wrong_value_is_one_problem(write, override: str, key: str) -> None:
    found = problems(write(GOOD), [override])
    assert list(found) == [key]
    assert found[key].where == "command line"
    assert " on the command line" in str(found[key])


def test_overrides_reach_into_sections_that_are_absent_or_null(write) -> None:
    loaded = load_recipe(write(GOOD + "eval: null\n"), ["model.lora.r=4", "eval.samples=3", "rollout.max_new_tokens=2"])
    assert loaded.recipe.model.lora is not None
    assert loaded.recipe.model.lora.r == 4
    assert loaded.recipe.eval.samples == 3
    assert loaded.overrides[("rollout", "max_new_tokens")] == "2"


def test_the_last_override_wins(write) -> None:
    assert load_recipe(write(GOOD), ["seed=1", "seed=2"]).recipe.seed == 2


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=1", ".a=1", ""])
def test_text_that_is_no_override(write, text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(GOOD), [text])
    assert "is no override, expected section.key=value" in str(caught.value)


def test_an_override_through_a_value_is_refused(write) -> None:
    assert "seed.x" in problems(write(GOOD + "seed: 3\n"), ["seed.x=1"])


def test_a_section_replaced_on_the_command_line_is_blamed_on_it(write) -> None:
    assert problems(write(GOOD), ["rollout={temprature: 1}"])["rollout.temprature"].where == "command line"


def test_a_missing_file_suggests_its_neighbour(write, tmp_path: Path) -> None:
    write(GOOD, "quickstart.yaml")
    with pytest.raises(RecipeError, match=r"no such file; did you mean .*quickstart\.yaml"):
        load_recipe(tmp_path / "quikstart.yaml")


def test_a_folder_and_a_binary_file_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(RecipeError, match="is not UTF-8"):
        load_recipe(tmp_path / "x.yaml")


def test_nothing_heavy_is_imported(write) -> None:
    code = (
        "import sys\n"
        "from rltoolkit.recipe import load_recipe, RecipeError\n"
        "try:\n    load_recipe(sys.argv[1])\nexcept RecipeError:\n    print('refused')\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'pandas', 'sympy', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    command = [sys.executable, "-c", code, str(write(GOOD + "sede: 3\n"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["refused", "[]"]


COMBINED = """\
  outcome:
    verifier: all_of
    verifiers:
      - verifier: integer
        extracion: boxed
      - {verifier: nmeric}
      - {verifier: regex, pattern: "("}
      - {option: 3}
      - verifier: any_of
        verifiers: [{verifier: numeric, rel_tol: a}]
      - {verifier: "my_pkg.mod:Mine", anything: 1}
"""


def test_mistakes_inside_combined_verifiers_come_together_with_their_lines(write) -> None:
    found = problems(write(changed("  outcome: {verifier: countdown}\n", COMBINED)))
    place = "rewards.outcome.verifiers"
    assert {key: int(problem.where.rpartition(" ")[2]) for key, problem in found.items()} == {
        f"{place}.0.extracion": 10,
        f"{place}.1.verifier": 11,
        f"{place}.2.pattern": 12,
        f"{place}.3.verifier": 13,
        f"{place}.4.verifiers.0.rel_tol": 15,
    }
    assert found[f"{place}.0.extracion"].remedy == f"did you mean {place}.0.extraction?"
    assert found[f"{place}.1.verifier"].remedy == "did you mean numeric?"


def test_an_empty_combination_is_refused(write) -> None:
    found = problems(write(changed("{verifier: countdown}", "{verifier: any_of, verifiers: []}")))
    assert "a list such as [{verifier: integer}, {verifier: exact}]" in str(found["rewards.outcome.verifiers"])


def test_a_schema_stands_in_the_recipe(write) -> None:
    schema = "{verifier: json_schema, schema: {type: object, required: [a]}}"
    loaded = load_recipe(write(changed("{verifier: countdown}", schema)))
    assert loaded.recipe.rewards is not None
    assert loaded.recipe.rewards.outcome.options == {"schema": {"type": "object", "required": ["a"]}}
    assert "rewards.outcome.schema" in problems(
        write(changed("{verifier: countdown}", "{verifier: json_schema, schema: 3}"))
    )
