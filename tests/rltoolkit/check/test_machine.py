"""A recipe for a GPU on a machine without one."""

from pathlib import Path

import pytest

from rltoolkit.check.configs import refuse_early
from rltoolkit.check.machine import Machine, gpu_reasons, machine_findings
from rltoolkit.recipe import LoadedRecipe, RecipeError, load_recipe

CPU = Machine(gpus=0, memory_gib=8.0, vllm=False)
GPU = Machine(gpus=2, memory_gib=80.0, vllm=True)
TEXT = """\
method: rlsp
model: {name_or_path: "embedded:countdown"}
data: {train: {path: "embedded:countdown"}}
rewards: {outcome: {verifier: countdown}}
train: {use_cpu: true, bf16: false, per_device_train_batch_size: 4}
"""


@pytest.fixture
def load(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(TEXT)
    (tmp_path / "gpu.yaml").write_text("distributed_type: 'NO'\nuse_cpu: false\n")

    def load_with(*overrides: str) -> LoadedRecipe:
        return load_recipe(path, overrides)

    return load_with


def keys(loaded: LoadedRecipe, machine: Machine) -> list[str]:
    return [finding.key for finding in machine_findings(loaded, machine)]


def test_a_recipe_for_a_cpu_runs_anywhere(load) -> None:
    assert keys(load(), CPU) == []
    assert keys(load(), GPU) == []
    assert keys(load("train={bf16: false, per_device_train_batch_size: 4}"), CPU) == []


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["train={}"], "train"),
        (["train={bf16: true}"], "train.bf16"),
        (["train={fp16: true, bf16: false}"], "train.fp16"),
        (["train={bf16: false}", "model.attn_implementation=flash_attention_2"], "model.attn_implementation"),
        (["train={bf16: false}", "launch.accelerate_config=gpu.yaml"], "launch.accelerate_config"),
        (["sft={data: {path: 'embedded:countdown'}, train: {bf16: true}}"], "sft.train.bf16"),
    ],
)
def test_what_asks_for_a_gpu(load, overrides: list[str], key: str) -> None:
    loaded = load(*overrides)
    assert [name for name, _ in gpu_reasons(loaded)] == [key]
    assert keys(loaded, CPU) == [key]
    assert keys(loaded, GPU) == []


def test_more_processes_than_gpus(load) -> None:
    loaded = load("train={bf16: true}", "launch.processes=3")
    assert keys(loaded, GPU) == ["launch.processes"]
    assert keys(load("launch.processes=3"), GPU) == []


@pytest.mark.parametrize(
    ("overrides", "on_cpu", "on_gpu"),
    [
        (["rollout.backend=vllm"], ["vLLM is not installed here"], []),
        (["rollout.backend=vllm-server", "rollout.servers.urls=['http://far:1']"], [], []),
        (["rollout.backend=trl-vllm", "train={bf16: false}"], ["no GPU", "not installed here"], []),
        (["method=sft", "sft={data: {path: 'embedded:countdown'}}", "rollout.backend=vllm"], [], []),
        (
            [
                "method=sft",
                "sft={data: {path: 'embedded:countdown'}}",
                "rollout.backend=vllm",
                "eval.tasks=[countdown]",
            ],
            ["vLLM is not installed here"],
            [],
        ),
    ],
)
def test_a_backend_that_this_machine_cannot_run(
    load, overrides: list[str], on_cpu: list[str], on_gpu: list[str]
) -> None:
    for machine, expected in ((CPU, on_cpu), (GPU, on_gpu)):
        found = list(machine_findings(load(*overrides), machine))
        assert len(found) == len(expected)
        for finding, text in zip(found, expected, strict=True):
            assert finding.key == "rollout.backend"
            assert text in finding.found


@pytest.mark.parametrize(
    ("overrides", "machine", "remedy"),
    [
        ([], CPU, "`make setup-vllm`"),
        (["train={bf16: true}"], CPU, "rltoolkit[vllm]"),
        ([], Machine(gpus=1, memory_gib=80.0, vllm=False), "rltoolkit[vllm]"),
    ],
)
def test_vllm_is_to_be_installed_as_the_recipe_needs_it(load, overrides, machine, remedy) -> None:
    found = list(machine_findings(load("rollout.backend=vllm", *overrides), machine))
    (missing,) = [one for one in found if "vLLM is not installed" in one.found]
    assert remedy in missing.remedy


def test_training_is_refused_with_the_line_and_what_to_do(load) -> None:
    with pytest.raises(RecipeError) as caught:
        refuse_early(load("train={bf16: true, lerning_rate: 1}"), CPU)
    bf16, typo = caught.value.problems
    assert "is true without use_cpu, and this machine has no GPU" in str(bf16)
    assert "train.use_cpu=true" in bf16.remedy
    assert typo.remedy == "did you mean train.learning_rate?"


def test_a_good_recipe_is_not_refused(load) -> None:
    refuse_early(load(), CPU)


def test_this_machine_has_memory() -> None:
    assert Machine.this().memory_gib > 0.5
