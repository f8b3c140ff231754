"""What a Trainer logs arrives in metrics.jsonl, once for each step, also after a resumed run."""

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rltoolkit.run.callback import MetricsCallback
from rltoolkit.run.checkpoints import last_checkpoint
from rltoolkit.run.metrics import MetricsWriter, read_metrics


def train(folder: Path, max_steps: int, *, resume: bool = False) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    arguments = TrainingArguments(
        str(folder / "checkpoints"),
        max_steps=max_steps,
        save_steps=2,
        logging_steps=1,
        lr_scheduler_type="constant",
        per_device_train_batch_size=1,
        use_cpu=True,
        report_to="none",
    )
    rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8)
    callback = MetricsCallback(MetricsWriter(folder / "metrics.jsonl"), "train", also_rewind=["evaluate"])
    trainer = Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows, callbacks=[callback])
    trainer.train(resume_from_checkpoint=str(last_checkpoint(folder / "checkpoints")) if resume else None)


def losses(folder: Path) -> list[tuple[int, float]]:
    records = read_metrics(folder / "metrics.jsonl")
    return [(record["step"], record["loss"]) for record in records if "loss" in record]


def test_a_resumed_run_logs_each_step_once_and_the_same_numbers(tmp_path: Path) -> None:
    train(tmp_path / "straight", 5)
    train(tmp_path / "broken", 3)
    writer = MetricsWriter(tmp_path / "broken" / "metrics.jsonl")
    writer.write("evaluate", 2, {"accuracy": 0.5})
    writer.write("evaluate", 3, {"accuracy": 0.6})
    assert [step for step, _ in losses(tmp_path / "broken")] == [1, 2, 3]

    for checkpoint in (tmp_path / "broken" / "checkpoints").glob("checkpoint-3"):
        (checkpoint / "trainer_state.json").unlink()  # as if it had died while writing the last one
    train(tmp_path / "broken", 5, resume=True)

    assert [step for step, _ in losses(tmp_path / "broken")] == [1, 2, 3, 4, 5]
    assert losses(tmp_path / "broken") == losses(tmp_path / "straight")
    records = read_metrics(tmp_path / "broken" / "metrics.jsonl")
    assert [record["step"] for record in records if record["phase"] == "evaluate"] == [2]


def test_only_numbers_of_the_main_process_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    callback = MetricsCallback(MetricsWriter(path), "sft")
    arguments = TrainingArguments(str(tmp_path / "out"), report_to="none", use_cpu=True)
    logs = {"loss": np.float32(0.5), "tokens": np.int64(7), "done": True, "note": "text", "shape": [1]}

    callback.on_log(arguments, TrainerState(global_step=4, is_world_process_zero=False), TrainerControl(), logs)
    assert read_metrics(path) == []

    callback.on_log(arguments, TrainerState(global_step=4), TrainerControl(), logs)
    (record,) = read_metrics(path)
    del record["time"]
    assert record == {"phase": "sft", "step": 4, "loss": 0.5, "tokens": 7}
