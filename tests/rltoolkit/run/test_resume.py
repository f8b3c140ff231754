"""A resumed Trainer takes exactly the steps that were left, also when none was."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from rltoolkit.run.checkpoints import last_checkpoint
from rltoolkit.run.resume import allow_indexed_cpu, train_or_resume, was_last


def trainer(folder: Path) -> Trainer:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8)
    arguments = TrainingArguments(
        str(folder), max_steps=5, save_steps=2, per_device_train_batch_size=1, use_cpu=True, report_to="none"
    )
    return Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows)


@pytest.mark.parametrize("step", [2, 5])
def test_no_step_too_many_and_none_too_few(tmp_path: Path, step: int) -> None:
    first = trainer(tmp_path)
    train_or_resume(first, None)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    assert was_last(tmp_path / f"checkpoint-{step}") == (step == 5)

    second = trainer(tmp_path)
    train_or_resume(second, tmp_path / f"checkpoint-{step}")

    assert second.state.global_step == 5
    for one, two in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_checkpoint_loads_onto_the_device_of_a_rank_without_a_gpu(tmp_path: Path) -> None:
    torch.save({"step": torch.arange(3)}, tmp_path / "optimizer.pt")
    allow_indexed_cpu()
    allow_indexed_cpu()  # a second call must do no harm
    state = torch.load(tmp_path / "optimizer.pt", map_location=torch.device("cpu", 1), weights_only=True)
    assert state["step"].tolist() == [0, 1, 2]
    with pytest.raises(RuntimeError, match="restore data location"):
        torch.load(tmp_path / "optimizer.pt", map_location="nowhere:1", weights_only=True)
