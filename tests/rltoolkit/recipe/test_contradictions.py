"""Settings that cannot hold together."""

from pathlib import Path

import pytest

from rltoolkit.recipe import RecipeError, load_recipe

RLSP = """\
method: rlsp
model: {name_or_path: some/model, lora: {r: 8}}
data: {train: {path: some/data, prompt: "{q}", reference: a}}
rewards: {outcome: {verifier: math}, exploration: {kind: length, target_tokens: 40}}
train: {use_cpu: true}
"""
SFT = """\
method: sft
model: {name_or_path: some/model}
sft: {data: {path: some/data, prompt: "{q}", completion: a}}
"""


def keys(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    try:
        load_recipe(path, overrides)
    except RecipeError as error:
        return [problem.key for problem in error.problems]
    return []


def test_the_bases_are_fine(tmp_path: Path) -> None:
    assert keys(tmp_path, RLSP) == []
    assert keys(tmp_path, SFT) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["rewards=null"], ["rewards"]),
        (["data=null"], ["data"]),
        (["method=sft"], ["sft"]),
        (["model.lora=null", "model.quantization=4bit", "train={}"], ["model.quantization"]),
        (["model.quantization=8bit"], ["model.quantization"]),
        (["model.dtype=float16"], ["model.dtype"]),
        (["train.fp16=true"], ["train.fp16"]),
        (["train={bf16: true, fp16: true}"], ["train.fp16"]),
        (["rollout.temperature=0"], ["rollout.temperature"]),
        (["rollout.top_p=0.9"], ["rollout.top_p"]),
        (["rollout.backend=vllm", "rollout.min_p=0.1", "rollout.top_k=5"], ["rollout.min_p", "rollout.top_k"]),
        (
            ["train.paper_compat=true", "rewards.exploration={kind: distinct_steps, target_steps: 3}"],
            ["rewards.exploration.kind"],
        ),
        (["rewards.exploration={kind: length}"], ["rewards.exploration.target_tokens"]),
        (["rewards.exploration={kind: none, target_tokens: 3}"], ["rewards.exploration.target_tokens"]),
        (["data.train.reference=null"], ["data.train.reference"]),
        (["data.train.prompt=null"], ["data.train.prompt"]),
    ],
)
def test_contradictions_of_rlsp(tmp_path: Path, overrides: list[str], expected: list[str]) -> None:
    assert sorted(keys(tmp_path, RLSP, *overrides)) == sorted(expected)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.paper_compat=true", "rewards.exploration={kind: length}"],
        ["train.paper_compat=true", "rewards.exploration=null"],
        ["train.paper_compat=true", "rewards.exploration={kind: judge, model: m, base_url: 'http://localhost/v1'}"],
        ["rewards.exploration={kind: none}"],
        ["rewards.exploration={kind: 'my_package.rewards:Mine', anything: 3}"],
        ["rewards.outcome={verifier: 'my_package.rewards:Mine', anything: 3}"],
        ["data.train={path: 'embedded:countdown'}"],
    ],
)
def test_what_is_no_contradiction(tmp_path: Path, overrides: list[str]) -> None:
    assert keys(tmp_path, RLSP, *overrides) == []


def test_sft_takes_its_settings_from_one_place(tmp_path: Path) -> None:
    assert keys(tmp_path, SFT, "train.max_steps=3") == []
    assert keys(tmp_path, SFT, "sft.train.max_steps=3") == []
    assert keys(tmp_path, SFT, "sft.train.max_steps=3", "train.max_steps=3") == ["sft.train"]


def test_a_slip_is_not_reported_twice(tmp_path: Path) -> None:
    """A broken section hides the contradictions that need it, and only those."""
    assert keys(tmp_path, SFT, "model.lora=5", "model.quantization=4bit", "sft.train={}") == ["model.lora"]
    assert keys(tmp_path, RLSP, "rewards.outcome=5", "rollout.temperature=0") == [
        "rewards.outcome",
        "rollout.temperature",
    ]


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        ("distributed_type: MULTI_GPU\nuse_cpu: false\n", False),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2}\n", False),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3}\n", True),
        ("distributed_type: FSDP\n", True),
    ],
)
def test_sharded_weights_are_refused_where_the_critic_lives_in_the_model(
    tmp_path: Path, content: str, refused: bool
) -> None:
    (tmp_path / "accelerate.yaml").write_text(content)
    found = keys(tmp_path, RLSP, "train={}", "launch={accelerate_config: accelerate.yaml, processes: 2}")
    assert found == (["launch.accelerate_config"] if refused else [])
    assert keys(tmp_path, SFT, "launch={accelerate_config: accelerate.yaml, processes: 2}") == []


@pytest.mark.parametrize("content", ["- 1\n", "a: [\n"])
def test_an_accelerate_config_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "accelerate.yaml").write_text(content)
    assert keys(tmp_path, RLSP, "launch.accelerate_config=accelerate.yaml") == ["launch.accelerate_config"]
