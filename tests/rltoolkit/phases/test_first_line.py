"""The line that a run starts with."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rltoolkit.phases import begin_run, prepare_run
from rltoolkit.recipe import load_recipe

TEXT = """\
method: sft
model: {name_or_path: "embedded:countdown"}
sft: {data: {path: "embedded:countdown", format: text}}
train: {use_cpu: true, bf16: false}
eval: {tasks: [countdown], questions: 2}
"""
SERVERS = ["rollout.backend=vllm-server", "rollout.servers.urls=['http://a:1', 'http://b:1']"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], ", transformers samples"),
        (SERVERS, ", vllm-server samples (2 server(s))"),
        ([*SERVERS, "eval.tasks=[]"], ""),
    ],
)
def test_the_first_line_says_who_samples(tmp_path: Path, monkeypatch, overrides, says) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(TEXT)
    heard = io.StringIO()
    run = prepare_run(load_recipe("r.yaml", ["output_dir=out", *overrides]))
    begin_run(replace(run, console=Console(file=heard)))
    assert heard.getvalue() == f"sft  r.yaml -> out{says}\n"
