"""Only a checkpoint with every byte that resuming needs counts; the files here are real ones of a Trainer."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from rltoolkit.run.checkpoints import checkpoint_step, is_complete, last_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4)
    arguments = TrainingArguments(
        str(folder), max_steps=3, save_steps=1, per_device_train_batch_size=1, use_cpu=True, report_to="none"
    )
    Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows).train()
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "checkpoints"))


def test_the_newest_step_wins_by_number_not_by_name(folder: Path) -> None:
    assert last_checkpoint(folder) == folder / "checkpoint-3"
    ten = Path(shutil.copytree(folder / "checkpoint-3", folder / "checkpoint-10"))
    state = json.loads((ten / "trainer_state.json").read_text())
    (ten / "trainer_state.json").write_text(json.dumps({**state, "global_step": 10}))
    assert last_checkpoint(folder) == ten
    assert checkpoint_step(ten) == 10


def test_every_file_of_a_checkpoint_is_needed_or_named_here_as_not_needed(folder: Path) -> None:
    """Cut each file to half its size in turn; only files that resuming does not read may be cut unnoticed."""
    unnoticed = set()
    checkpoint = folder / "checkpoint-3"
    files = sorted(checkpoint.iterdir())
    assert len(files) >= 7
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        if is_complete(checkpoint):
            unnoticed.add(path.name)
        path.write_bytes(whole)
    assert is_complete(checkpoint)
    assert unnoticed == {"training_args.bin"}


@pytest.mark.parametrize("missing", ["trainer_state.json", "model.safetensors"])
def test_a_checkpoint_without_its_state_or_weights_is_absent(folder: Path, missing: str) -> None:
    (folder / "checkpoint-3" / missing).unlink()
    assert last_checkpoint(folder) == folder / "checkpoint-2"


def test_an_empty_safetensors_file_is_torn(folder: Path) -> None:
    (folder / "checkpoint-3" / "model.safetensors").write_bytes(b"")
    assert last_checkpoint(folder) == folder / "checkpoint-2"


def test_a_state_of_another_step_does_not_count(folder: Path) -> None:
    shutil.copytree(folder / "checkpoint-3", folder / "checkpoint-7")
    assert last_checkpoint(folder) == folder / "checkpoint-3"


def test_a_missing_shard_is_noticed(folder: Path) -> None:
    checkpoint = folder / "checkpoint-3"
    shards = [checkpoint / f"model-{part}-of-2.safetensors" for part in (1, 2)]
    for shard in shards:
        shutil.copy(checkpoint / "model.safetensors", shard)
    (checkpoint / "model.safetensors").unlink()
    index = {"weight_map": {"a": shards[0].name, "b": shards[1].name}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert is_complete(checkpoint)
    shards[1].unlink()
    assert not is_complete(checkpoint)


@pytest.mark.parametrize(("ranks", "complete"), [([0, 1], True), ([0], False), ([0, 2], False), ([1], False)])
def test_random_states_of_all_ranks_are_needed(folder: Path, ranks: list[int], complete: bool) -> None:
    checkpoint = folder / "checkpoint-3"
    single = checkpoint / "rng_state.pth"
    for rank in ranks:
        shutil.copy(single, checkpoint / f"rng_state_{rank}.pth")
    single.unlink()
    assert is_complete(checkpoint) is complete


def test_no_folder_and_no_checkpoint_mean_none(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-5").mkdir()
    assert last_checkpoint(tmp_path) is None


def test_another_name_has_no_step() -> None:
    with pytest.raises(ValueError, match="not named checkpoint-N"):
        checkpoint_step(Path("model"))
