"""`check` on whole recipes: what is wrong, what is only not verified, and every recipe that we ship."""

import os
from pathlib import Path

import pytest

from rltoolkit.check.machine import Machine
from rltoolkit.check.run import check_recipe
from rltoolkit.recipe import load_recipe, output_dir_of, recipe_hash, resolved_dict
from rltoolkit.run.folder import RunFolder

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(path for path in ROOT.glob("recipes/*/*.yaml") if path.parent.name != "accelerate")
# Add a recipe, and raise this number: a glob that finds nothing must not pass.
NUMBER_OF_RECIPES = 9
ACCELERATE = ["cpu_ddp", "ddp", "fsdp2", "single_gpu", "zero2", "zero3"]
CPU = Machine(gpus=0, memory_gib=8.0, vllm=False)
TEXT = """\
method: rlsp
model: {name_or_path: "embedded:countdown"}
data: {train: {path: "rows.jsonl", prompt: "{question}", reference: answer, format: text}}
rewards: {outcome: {verifier: math}, pool: {workers: 1}}
train: {use_cpu: true, bf16: false, per_device_train_batch_size: 2, max_steps: 1}
"""
ROWS = '{"question": "1+2=", "answer": "3"}\n{"question": "2+2=", "answer": "4"}\n'


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The hub is asked at an address where nothing listens, whatever network there is.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(TEXT)
    (tmp_path / "rows.jsonl").write_text(ROWS)

    def run(*overrides: str, path: Path = Path("r.yaml"), machine: Machine = CPU) -> tuple[int, str]:
        said: list[str] = []
        code = check_recipe(load_recipe(path, overrides), said.append, machine)
        return code, "\n".join(said)

    return run


def test_a_good_recipe_is_described(check) -> None:
    code, text = check()
    assert code == 0
    assert "No problem found." in text
    for line in (
        "2 rows, columns: question, answer",
        "row 1 prompt: '1+2='",
        "row 1 reference: '3'",
        "rollout: 2 per device x 1 process(es) x 1 steps_per_generation = 2 responses, 2 prompts x 1",
        "2 of 2 gold answers accepted",
        "GiB per process, in",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["train.lerning_rate=1"], "train.lerning_rate on the command line: unknown key"),
        (["data.train.prompt='{qestion}'"], "did you mean question?"),
        (["data.train.reference=anser"], "did you mean answer?"),
        (["data.train.format=chat"], "has no chat template"),
        (["rollout.max_prompt_tokens=2"], "rollout.max_prompt_tokens"),
        (["train.per_device_train_batch_size=64"], "has 2 prompts, and one rollout takes 64"),
        (["eval.tasks=[countdwn]"], "did you mean countdown?"),
        (["rewards.outcome.verifier='no_such:Thing'"], "cannot be imported"),
        (["sft={data: {path: rows.jsonl, prompt: '{question}', completion: x, format: text}}"], "'x'"),
    ],
)
def test_one_mistake_is_one_problem(check, overrides: list[str], says: str) -> None:
    code, text = check(*overrides)
    assert code == 2
    problems = text.partition("1 problem(s)")[2]
    assert says in problems


def test_mistakes_of_different_parts_come_together(check) -> None:
    code, text = check("train.lerning_rate=1", "data.train.reference=anser", "eval.tasks=[countdwn]")
    assert code == 2
    assert "3 problem(s)" in text


def test_a_gold_answer_that_the_verifier_refuses(check, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROWS + '{"question": "?", "answer": "\\\\frac{1}{2"}\n')
    code, text = check()
    assert code == 2
    assert "1 problem(s)\n  rewards.outcome: the verifier cannot read 1 of 3 references, first in row 3" in text
    assert "row 3: gold" in text


def test_a_gold_answer_that_can_be_read_and_is_refused(check, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROWS + '{"question": "?", "answer": "five\\nsix"}\n')
    code, text = check(r"rewards.outcome={verifier: regex, pattern: 'is (.+)'}")
    assert code == 2
    assert "1 problem(s)\n  rewards.outcome: the verifier does not accept 1 gold answer(s)" in text


def test_every_reference_is_read_and_what_was_not_tried_is_said(check, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROWS * 300)
    assert "the first 500 of 600 rows were tried; the verifier can read all references" in check()[1]
    (tmp_path / "rows.jsonl").write_text(ROWS * 300 + '{"question": "?", "answer": "\\\\frac{1}{2"}\n')
    code, text = check()
    assert code == 2
    assert "500 of 500 gold answers accepted" in text
    assert "the verifier cannot read 1 of 601 references, first in row 601" in text.partition("1 problem(s)")[2]


def test_the_pool_of_the_recipe_is_used(check) -> None:
    assert "start_timeout_s" in check("rewards.pool.start_timeout_s=0.001")[1].partition("1 problem(s)")[2]


def test_an_empty_data_set(check, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    code, text = check()
    assert code == 2
    assert "has no rows" in text


def test_a_model_folder_without_a_tokenizer(check, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "unknown"}')
    code, text = check("model.name_or_path=./model")
    assert code == 2
    assert "has no tokenizer" in text


def test_the_memory_of_each_kind_of_critic(check, tmp_path: Path) -> None:
    """A saved critic is a folder without a tokenizer: its memory is that of the backbone in its config."""
    from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
    from rltoolkit.rlsp.critics.critic import Critic
    from rltoolkit.rlsp.critics.files import save_critic

    critic = Critic.from_policy(countdown_model(0, countdown_tokenizer()))
    save_critic(tmp_path, critic, critic.state_dict())
    said = []
    for overrides in (
        [f"train.critic_model_name_or_path={tmp_path / 'critic'}"],
        ["train.critic=shared"],
        ["train.critic=lora", "model.lora={r: 8}"],
    ):
        code, text = check(*overrides)
        assert code == 0
        said.append(text)
    assert ["critic weights" in text for text in said] == [True, True, True]
    assert ["activations of the critic" in text for text in said] == [True, False, True]


def test_a_saved_critic_of_another_form_is_a_problem(check, tmp_path: Path) -> None:
    from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
    from rltoolkit.rlsp.critics.critic import SharedCritic
    from rltoolkit.rlsp.critics.files import save_critic

    critic = SharedCritic(countdown_model(0, countdown_tokenizer()))
    save_critic(tmp_path, critic, critic.state_dict())
    path = f"train.critic_model_name_or_path={tmp_path / 'critic'}"
    assert check(path, "train.critic=shared")[0] == 0
    wide = ("model.lora={r: 8}", "train.critic=lora")
    for overrides, message in (
        ((), "of kind shared, 1 value(s) per position, hidden size 64; this run's is of kind separate"),
        (wide, "this run's is of kind lora, 1 value(s) per position, hidden size 64, r 16, alpha 32.0"),
        (("train.critic=shared", f"train.critic_model_name_or_path={tmp_path}"), "(its folder critic does)"),
        (("train.critic=shared", "train.critic_model_name_or_path=no-one/nothing"), "holds no saved critic;"),
    ):
        code, text = check(path, *overrides)
        assert code == 2
        assert message in text.partition("1 problem(s)")[2]


def test_hub_names_out_of_reach_are_notes(check) -> None:
    code, text = check("model.name_or_path=no-one/nothing", "data.train.path=no-one/nothing")
    assert code == 0
    assert "model no-one/nothing is not verified" in text
    assert "dataset no-one/nothing is not verified" in text
    assert "memory is not estimated" in text


def test_a_gpu_that_is_not_here_is_a_note(check) -> None:
    code, text = check("train.use_cpu=false", "train.bf16=true")
    assert code == 0
    assert "training would refuse it here: train.bf16 on the command line" in text
    assert "GiB per process, in" in text


def test_a_machine_that_is_too_small_is_a_note(check) -> None:
    code, text = check(machine=Machine(gpus=0, memory_gib=0.001, vllm=False))
    assert code == 0
    assert "the estimate is above the 0 GiB of this machine" in text


def test_the_run_folder_is_looked_at_and_left_alone(check, tmp_path: Path) -> None:
    loaded = load_recipe("r.yaml")
    assert "holds a run" not in check()[1]
    assert not output_dir_of(loaded).exists()
    RunFolder.open(output_dir_of(loaded), resolved_dict(loaded.recipe), recipe_hash(loaded.recipe))
    code, text = check()
    assert code == 0
    assert "holds a run of this recipe; training continues it" in text
    code, text = check("seed=5", f"output_dir={output_dir_of(loaded)}")
    assert code == 2
    assert "holds a run of another recipe" in text


def test_the_number_of_recipes() -> None:
    assert len(RECIPES) == NUMBER_OF_RECIPES, [path.name for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_passes(check, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the README starts them
    data = Path(os.environ.get("RLTOOLKIT_DATA", ROOT.parent / "shared" / "data"))
    if "RLTOOLKIT_DATA" in path.read_text() and not data.is_dir():
        pytest.skip(f"{path.name} needs the data folder, and {data} does not exist; set RLTOOLKIT_DATA")
    monkeypatch.setenv("RLTOOLKIT_DATA", str(data))
    code, text = check(path=path)
    assert code == 0, text


def test_every_launch_setting_can_be_read(check, tmp_path: Path) -> None:
    found = sorted(path.stem for path in (ROOT / "recipes" / "accelerate").glob("*.yaml"))
    assert found == ACCELERATE
    (tmp_path / "sft.yaml").write_text(
        "method: sft\nmodel: {name_or_path: no-one/nothing}\n"
        "sft: {data: {path: no-one/nothing, prompt: '{a}', completion: b}, train: {bf16: true}}\n"
    )
    for name in found:
        config = ROOT / "recipes" / "accelerate" / f"{name}.yaml"
        assert all(f"# {word}" in config.read_text() for word in ("Tested on", "Start like this", "Override like this"))
        code, text = check(f"launch.accelerate_config={config}", "launch.processes=2", path=tmp_path / "sft.yaml")
        assert code == 0, text
