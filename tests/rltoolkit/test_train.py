"""Whole runs from recipes: what lies in the folder at the end, what is continued, what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from reward_models.errors import RLToolkitError
from rltoolkit.errors import DataError, ModelError, RunFolderError
from rltoolkit.recipe import RecipeError, load_recipe
from rltoolkit.run.metrics import read_metrics
from rltoolkit.train import main, train

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "recipes" / "rlsp" / "quickstart.yaml"
SMALL = [
    "sft.data.limit=256", "sft.train.max_steps=4", "sft.train.per_device_train_batch_size=16", "data.train.limit=64",
    "train.max_steps=4", "train.per_device_train_batch_size=4", "train.steps_per_generation=2", "train.save_steps=2",
    "train.logging_steps=1", "train.critic_warmup_rollouts=1", "rollout.max_new_tokens=24", "eval.questions=8",
    "eval.every_steps=2",
]  # fmt: skip


def run(folder, *overrides, recipe=QUICKSTART):
    return train(load_recipe(recipe, [*SMALL, f"output_dir={folder}", *overrides]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run") / "quickstart")


def test_the_folder_holds_everything(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "recipe.resolved.yaml", "versions.json", "manifest.json", "metrics.jsonl", "samples", "checkpoints", "model",
        "summary.json", "plots", "README.md", "eval",
    } <= names  # fmt: skip
    phases = json.loads((finished / "manifest.json").read_text())["phases"]
    assert list(phases) == ["start", "sft", "evaluate_before", "train", "evaluate_after"]


def test_summary_has_the_published_keys(finished):
    summary = json.loads((finished / "summary.json").read_text())
    for key in ("accuracy_before", "accuracy_after", "sampled_before", "sampled_after"):
        low, high = summary[f"{key}_interval"]
        assert low <= summary[key] <= high
    assert summary["seconds"] > 0
    assert summary["questions"] == 8


def test_metrics_have_a_line_per_logged_step(finished):
    records = read_metrics(finished / "metrics.jsonl")
    steps = [record["step"] for record in records if record["phase"] == "train" and "policy/loss" in record]
    assert steps == [1, 2, 3, 4]
    assert {record["phase"] for record in records} == {"sft", "train", "evaluate"}
    assert [record["step"] for record in records if record["phase"] == "evaluate"] == [0, 2, 4]
    rollout = next(record for record in records if record["phase"] == "train")
    assert {
        "reward/total",
        "reward/outcome",
        "reward/exploration",
        "verdict/correct",
        "format_rate",
        "attempts",
    } <= rollout.keys()
    assert {"entropy", "policy/clip_fraction", "value/explained_variance", "completions/mean_length"} <= rollout.keys()


def test_samples_are_those_of_each_rollout(finished):
    files = sorted((finished / "samples").glob("*.parquet"))
    assert [file.name for file in files] == ["step-000000-rank-0.parquet", "step-000002-rank-0.parquet"]
    rows = pq.read_table(files[0]).to_pylist()
    assert len(rows) == 8
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    for row in rows:
        assert tokenizer.decode(row["completion_ids"], skip_special_tokens=True) == row["completion"]
        assert row["prompt"].endswith("\n")
        assert row["verdict"] in ("correct", "wrong", "no_answer")


def test_plots_were_drawn(finished):
    names = {path.stem for path in (finished / "plots").glob("*.png")}
    assert {"accuracy", "rewards", "response_length", "entropy", "clip_fraction"} <= names


def test_model_loads_clean_and_holds_no_training_files(finished):
    _, report = AutoModelForCausalLM.from_pretrained(finished / "model", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["missing_keys"]
    assert not (finished / "model" / "training_args.bin").exists()
    assert (finished / "model" / "critic" / "model.safetensors").is_file()


def test_the_same_recipe_finds_its_run_finished(finished):
    before = (finished / "model" / "model.safetensors").stat().st_mtime_ns
    assert run(finished) == finished
    assert (finished / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_another_recipe_is_refused_and_nothing_changes(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match=r"train\.learning_rate") as caught:
        run(finished, "train.learning_rate=0.5")
    assert "output_dir" in str(caught.value)
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {finished / ".lock"}


def test_a_run_that_died_ends_with_the_same_weights(finished, tmp_path):
    """Die in training after the first checkpoint; the second start goes on from it."""
    folder = tmp_path / "again"
    script = (
        "import os\nfrom transformers import TrainerCallback\nimport rltoolkit.rlsp.loop as loop\n"
        "class Die(TrainerCallback):\n"
        "    def on_step_end(self, args, state, control, **kwargs):\n"
        "        if state.global_step == 3: os._exit(9)\n"
        "usual = loop._callbacks\nloop._callbacks = lambda *given: [*usual(*given), Die()]\n"
        "from rltoolkit.train import main\nimport sys\nsys.exit(main(sys.argv[1:]))\n"
    )
    arguments = [str(QUICKSTART), *SMALL, f"output_dir={folder}"]
    died = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, check=False, timeout=200
    )
    assert died.returncode == 9, died.stderr.decode()[-2000:]
    assert not (folder / "model").exists()
    run(folder)
    assert (folder / "model" / "model.safetensors").read_bytes() == (
        finished / "model" / "model.safetensors"
    ).read_bytes()
    steps = [r["step"] for r in read_metrics(folder / "metrics.jsonl") if r["phase"] == "train" and "policy/loss" in r]
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.train.limit=4"], DataError, "one rollout takes 8"),
        (["rollout.max_prompt_tokens=3"], DataError, "more than rollout.max_prompt_tokens = 3 tokens"),
        (["data.train.format=chat"], ModelError, "no chat template"),
        (["train.gamma=2", "train.lerning_rate=1"], RecipeError, "lerning_rate"),
    ],
)
def test_bad_input_is_refused_before_weights_are_written(tmp_path, overrides, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


def test_a_refused_start_does_not_claim_the_folder(tmp_path):
    with pytest.raises(DataError):
        run(tmp_path / "run", "rollout.max_prompt_tokens=3")
    assert run(tmp_path / "run", "train.max_steps=1", "eval.tasks=[]").is_dir()


def write_recipe(tmp_path, **changes):
    """The quickstart with other sections; `eval` stays, SMALL's overrides apply."""
    recipe = yaml.safe_load(QUICKSTART.read_text()) | changes
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_missing_reference_column_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1,2,3>06\\n", "gold": "numbers=1,2,3;target=6"}\n' * 16)
    data = {"train": {"path": "rows.jsonl", "format": "text", "prompt": "{prompt}", "reference": "answer"}}
    with pytest.raises(RLToolkitError, match="gold"):
        run(tmp_path / "run", "data.train.limit=null", recipe=write_recipe(tmp_path, data=data))


def test_references_that_the_verifier_cannot_read_are_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1,2,3>06\\n", "gold": "6"}\n' * 16)
    data = {"train": {"path": "rows.jsonl", "format": "text", "prompt": "{prompt}", "reference": "gold"}}
    with pytest.raises(DataError, match="the verifier cannot read 16 of 16 references, first in row 1: '6'"):
        run(tmp_path / "run", "data.train.limit=null", recipe=write_recipe(tmp_path, data=data))
    assert not (tmp_path / "run").exists()


def test_a_verifier_that_refuses_every_gold_answer_is_named(tmp_path):
    # These can be read but have no solution: every answer would be wrong.
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1,2,3>99\\n", "gold": "numbers=1,2,3;target=99"}\n' * 16)
    data = {"train": {"path": "rows.jsonl", "format": "text", "prompt": "{prompt}", "reference": "gold"}}
    with pytest.raises(DataError, match=r"does not accept 16 of 16 gold answers, first in row 1: .*target=99"):
        run(tmp_path / "run", "data.train.limit=null", recipe=write_recipe(tmp_path, data=data))
    assert not (tmp_path / "run").exists()


def test_an_empty_dataset_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    data = {"train": {"path": "rows.jsonl", "format": "text", "prompt": "{prompt}", "reference": "answer"}}
    with pytest.raises(DataError, match="no rows"):
        run(tmp_path / "run", "data.train.limit=null", recipe=write_recipe(tmp_path, data=data))


def test_exit_code_2_and_no_traceback(tmp_path, capsys):
    code = main([str(QUICKSTART), "train.gamma=2", "eval.tasks=[contdown]", f"output_dir={tmp_path / 'run'}"])
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_lora_from_a_recipe(tmp_path):
    folder = run(tmp_path / "run", "model.lora={r: 4, alpha: 8}", "train.kl_coef=0.1")
    assert (folder / "model" / "adapter_model.safetensors").is_file()
    assert "kl" in read_metrics(folder / "metrics.jsonl")[-3] or any(
        "kl" in r for r in read_metrics(folder / "metrics.jsonl")
    )


def test_method_sft_alone(tmp_path):
    recipe = yaml.safe_load(QUICKSTART.read_text())
    path = write_recipe(tmp_path, method="sft", data=None, rewards=None, train={})
    assert recipe["method"] == "rlsp"
    small = [override for override in SMALL if override.startswith(("sft.", "eval.questions", "rollout."))]
    folder = train(load_recipe(path, [*small, f"output_dir={tmp_path / 'run'}"]))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["method"] == "sft"
    assert {"accuracy_before", "accuracy_after"} <= summary.keys()
    assert (folder / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_real_problems_with_pretrained_weights(tmp_path):
    """20 steps on GSM8K with stories260k: it runs, counts its verdicts, and claims nothing."""
    data = Path(os.environ.get("RLTOOLKIT_DATA", ROOT.parent / "shared" / "data"))
    if not (data / "gsm8k").is_dir() or not (data.parent / "models" / "stories260k").is_dir():
        pytest.skip(f"needs gsm8k in {data} and stories260k in {data.parent / 'models'}; set RLTOOLKIT_DATA")
    command = [
        sys.executable,
        "-m",
        "rltoolkit.train",
        "recipes/rlsp/gsm8k-stories260k.yaml",
        f"output_dir={tmp_path / 'run'}",
    ]
    environment = os.environ | {"RLTOOLKIT_DATA": str(data), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=230)
    assert done.returncode == 0, done.stderr[-3000:]
    records = [
        r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["phase"] == "train" and "verdict/correct" in r
    ]
    verdicts = ("correct", "wrong", "no_answer", "bad_reference", "timeout", "error")
    for record in records:
        assert sum(record[f"verdict/{name}"] for name in verdicts) == pytest.approx(1)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == 20
    _, report = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model", output_loading_info=True)
    assert not report["unexpected_keys"]


@pytest.mark.slow
def test_under_accelerate_on_two_processes(tmp_path):
    command = [
        sys.executable, "-m", "rltoolkit", "train", str(QUICKSTART), *SMALL, "launch.processes=2",
        f"output_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=230)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "run" / "samples").glob("step-000000-rank-*.parquet"))) == 2
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "accuracy_after" in summary
