"""The command line: help, exit codes, and nothing heavy where no model is needed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eval.choice import SamplerChoice
from rltoolkit.cli import main
from rltoolkit.version import __version__

COMMANDS = ["train", "check", "verify", "eval", "serve"]
HEAVY = ("torch", "transformers", "trl", "datasets", "pandas", "matplotlib", "sympy")
RECIPE = """\
method: rlsp
model: {name_or_path: "embedded:countdown"}
data: {train: {path: "embedded:countdown", format: text, limit: 64}}
rewards: {outcome: {verifier: countdown}, pool: {workers: 1}}
train: {use_cpu: true, bf16: false, per_device_train_batch_size: 4, max_steps: 1}
"""


def run_and_list_heavy(*arguments: str) -> tuple[int, str, list[str]]:
    """Run a command in a fresh process; its exit code, its output, and the heavy packages it imported."""
    code = (
        "import sys, atexit\n"
        f"heavy = {HEAVY}\n"
        "atexit.register(lambda: sys.stdout.write('HEAVY ' + ' '.join(m for m in heavy if m in sys.modules)))\n"
        "from rltoolkit.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text, _, heavy = done.stdout.rpartition("HEAVY ")
    return done.returncode, text + done.stderr, heavy.split()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


def test_help_version_and_recipe_errors_import_nothing_heavy(recipe: Path) -> None:
    assert run_and_list_heavy("--version") == (0, f"rltoolkit {__version__}\n", [])
    code, text, heavy = run_and_list_heavy("--help")
    assert (code, heavy) == (0, [])
    assert re.findall(r"^    (\w+) ", text, re.MULTILINE) == COMMANDS
    for command in ("check", "train", "serve"):
        code, text, heavy = run_and_list_heavy(command, str(recipe), "rollout.temprature=1")
        assert (code, heavy) == (2, [])
        assert text == (
            f"rltoolkit {command}: rollout.temprature on the command line: unknown key; "
            "did you mean rollout.temperature?\n"
        )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_one_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.count(f"example: rltoolkit {command} ") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["search", "r.yaml"], "invalid choice: 'search'"),
        (["train"], "RECIPE"),
        (["eval", "--model", "m"], "--task"),
        (["eval", "--model", "m", "--task", "t", "--backend", "trl-vllm"], "invalid choice: 'trl-vllm'"),
        (["eval", "--model", "m", "--task", "t", "--n", "0"], "give a whole number of at least 1"),
        (["verify", "f", "--timeout", "0"], "give seconds > 0"),
        (["verify", "f", "--timeout", "soon"], "give seconds > 0"),
        (["verify", "f", "--show", "-1"], "give a whole number"),
    ],
)
def test_wrong_arguments(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "no-such.yaml"],
        ["check", "no-such.yaml"],
        ["serve", "no-such.yaml"],
        ["verify", "no-such.jsonl"],
        ["eval", "--model", "./no-such-model", "--task", "countdown"],
        ["eval", "--model", "./no-such-model", "--task", "countdwn"],
        ["eval", "--model", "./no-such-model", "--task", "countdown", "--url", "http://127.0.0.1:1"],
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"rltoolkit {arguments[0]}: ")
    assert "Traceback" not in message


def test_check_says_what_it_found(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(recipe)]) == 0
    assert "No problem found." in capsys.readouterr().out
    assert main(["check", str(recipe), "train.lerning_rate=1"]) == 2


def test_verify_judges_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.json"
    file.write_text('{"response": "\\\\boxed{2}", "reference": "2"}\n{"response": "2", "reference": "2"}\n')
    assert main(["verify", str(file), "--set", "extraction=lenient", "--workers", "1", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["outcomes"]["correct"] == 2
    assert f"written to {out}" in capsys.readouterr().out


def test_verify_refuses_at_once_what_it_could_not_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out, says in ((tmp_path / "none" / "out.json", "no such folder"), (tmp_path, "is a folder")):
        assert main(["verify", "no-such.jsonl", "--json", str(out)]) == 2
        assert f"{out} cannot be written: {says}" in capsys.readouterr().err


def test_verify_does_not_overwrite_what_it_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, link = tmp_path / "rows.jsonl", tmp_path / "link.json"
    file.write_text('{"response": "\\\\boxed{2}", "reference": "2"}\n')
    before = file.read_bytes()
    link.symlink_to(file)
    for out in (file, link):
        assert main(["verify", str(file), "--json", str(out)]) == 2
        assert "is the file that is judged, which would be lost" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_verify_names_every_verifier(capsys: pytest.CaptureFixture[str]) -> None:
    from rltoolkit.recipe.schema import VERIFIERS

    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    assert ", ".join(VERIFIERS) in " ".join(capsys.readouterr().out.split())


def test_eval_writes_where_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rltoolkit.embedded.models import save_countdown_model

    save_countdown_model(tmp_path / "model", seed=0)
    arguments = ["eval", "--model", str(tmp_path / "model"), "--task", "countdown", "--limit", "3"]
    arguments += ["--max-new-tokens", "4", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "countdown" in capsys.readouterr().out
    assert (tmp_path / "out" / "results.json").is_file()


def test_eval_asks_the_backend_and_the_servers_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("eval.runner.run_tasks", lambda *_, **options: asked.update(options) or [])
    urls = ["http://127.0.0.1:8100", "http://127.0.0.1:8101"]
    given = ["--backend", "vllm-server", *(part for url in urls for part in ("--url", url))]
    assert main(["eval", "--model", "m", "--task", "countdown", *given]) == 0
    assert asked["sampler"] == SamplerChoice("vllm-server", tuple(urls))
    assert main(["eval", "--model", "m", "--task", "countdown", *given, "--wait", "3"]) == 0
    assert asked["sampler"] == SamplerChoice("vllm-server", tuple(urls), wait_s=3.0)


def test_eval_refuses_a_contradiction_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from rltoolkit.cli import main; "
        "code = main(['eval', '--model', 'm', '--task', 'countdown', '--backend', 'vllm', '--device', 'cpu']); "
        "assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("rltoolkit eval: --device is cpu with backend vllm")
