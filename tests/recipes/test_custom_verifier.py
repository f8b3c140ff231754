"""The example of a verifier of one's own does what its README says."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reward_models import Outcome
from rltoolkit.cli import main
from rltoolkit.recipe.plugins import build_verifier
from rltoolkit.recipe.yaml_source import parse_scalar
from rltoolkit.run.metrics import read_metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes" / "custom_verifier"
VERIFY = [
    "verify", str(FOLDER / "examples.jsonl"), "--verifier", "unordered_list:UnorderedList", "--label", "label",
    "--workers", "1",
]  # fmt: skip


def judge(answer: str, reference: str, **options) -> Outcome:
    spec = importlib.util.spec_from_file_location("unordered_list", FOLDER / "unordered_list.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.UnorderedList(**options).check(f"so \\boxed{{{answer}}}", reference).outcome


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another working directory: the file beside the recipe is found from anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "unordered_list", raising=False)


def test_order_does_not_count_and_repetition_does() -> None:
    assert judge("3, 1,2", "1, 2, 3") is Outcome.CORRECT
    assert judge("3; 1;2", "1; 2; 3", separator=";") is Outcome.CORRECT
    for answer in ("1, 2", "1, 2, 3, 4", "1, 2, 2, 3", "123", ""):
        assert judge(answer, "1, 2, 3") is Outcome.WRONG
    assert judge("NewYork, Rome", "New York, Rome") is Outcome.WRONG
    assert judge("1", " , ") is Outcome.BAD_REFERENCE
    with pytest.raises(ValueError, match="separator is empty"):
        judge("1", "1", separator="")


@pytest.mark.usefixtures("_elsewhere")
def test_verify_agrees_with_every_label(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*VERIFY, "--json", "out.json"]) == 0
    found = json.loads(Path("out.json").read_text())
    assert (found["rows"], found["agree"], found["disagreements"]) == (15, 15, [])
    assert (found["outcomes"]["correct"], found["outcomes"]["wrong"], found["outcomes"]["no_answer"]) == (7, 5, 3)
    # what the README shows, but for the speed
    shown = (FOLDER / "README.md").read_text()
    for line in capsys.readouterr().out.splitlines()[1:-1]:
        assert line in shown


@pytest.mark.usefixtures("_elsewhere")
def test_options_reach_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*VERIFY, "--set", "separator=;"]) == 0
    assert "row(s) judged otherwise than labelled" in capsys.readouterr().out
    assert main([*VERIFY, "--set", "separator="]) == 2
    assert "refuses its options" in capsys.readouterr().err
    assert main([*VERIFY, "--set", "seperator=;"]) == 2
    assert "it takes separator" in capsys.readouterr().err


@pytest.mark.usefixtures("_elsewhere")
def test_check_tries_the_gold_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(FOLDER / "divisors.yaml")]) == 0
    text = capsys.readouterr().out
    assert "Verifier unordered_list:UnorderedList\n  63 of 63 gold answers accepted" in text
    assert "No problem found." in text


def test_the_data_is_what_it_says() -> None:
    rows = [json.loads(line) for line in (FOLDER / "divisors.jsonl").read_text().splitlines()]
    assert len(rows) == 63
    for row in rows:
        number = int(row["prompt"].removesuffix(">\n"))
        divisors = [str(k) for k in range(1, number + 1) if number % k == 0]
        assert row["answer"] == ", ".join(divisors)
        assert row["completion"] == "\\boxed{" + ",".join(divisors) + "}"


def test_the_readme_names_what_is_there() -> None:
    text = (FOLDER / "README.md").read_text()
    names = set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
    assert names == {path.name for path in FOLDER.iterdir() if path.is_file()} - {"README.md"}
    for command in re.findall(r"^rltoolkit (?:verify|check|train) (\S+)", text, re.MULTILINE):
        assert (ROOT / command).is_file()


def test_the_combination_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    block = re.findall(r"^```yaml\n(.*?)^```", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)[-1]
    verifier = build_verifier(parse_scalar(block)["outcome"], folders=[FOLDER])
    for answer in ("1, 2, 3, 6", "6, 3, 2, 1", r"1, 2, 3, \frac{12}{2}"):
        assert verifier.check(f"\\boxed{{{answer}}}", "1, 2, 3, 6").outcome is Outcome.CORRECT
    for answer in ("1, 2, 3", "6"):
        assert verifier.check(f"\\boxed{{{answer}}}", "1, 2, 3, 6").outcome is Outcome.WRONG


@pytest.mark.slow
def test_the_recipe_trains(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rltoolkit",
        "train",
        str(FOLDER / "divisors.yaml"),
        f"output_dir={tmp_path / 'run'}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    rollouts = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "verdict/correct" in r]
    assert len(rollouts) == 8
    # stage one has learned enough for the verifier to meet right and wrong answers
    assert all(0 < rollout["verdict/correct"] < 1 for rollout in rollouts)
    assert all(rollout["verdict/error"] == rollout["verdict/timeout"] == 0 for rollout in rollouts)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
