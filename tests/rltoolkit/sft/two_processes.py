"""One rank of an SFT run, started by test_two_processes.py: FOLDER [STEP AT WHICH TO DIE]."""

import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig

from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.run.callback import MetricsCallback
from rltoolkit.run.folder import RunFolder
from rltoolkit.run.metrics import MetricsWriter
from rltoolkit.sft.stage import run_sft
from rltoolkit.train import leave_the_group


class Die(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.global_step == self.step:
            os._exit(9)


def main(folder: Path, dies_at: int) -> None:
    state = PartialState(cpu=True)
    with state.main_process_first():
        run = RunFolder.open(folder, {"method": "sft"}, "abc", is_main=state.is_main_process)
    metrics = MetricsWriter(run.metrics_path, is_main=state.is_main_process)
    tokenizer = countdown_tokenizer()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, len(tokenizer), (12, 9), generator=generator).tolist()
    config = SFTConfig(
        output_dir=str(run.checkpoints_dir("sft")),
        max_steps=5,
        save_steps=2,
        logging_steps=1,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        use_cpu=True,
        ddp_backend="gloo",
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
    )
    result = run_sft(
        countdown_model(0, tokenizer, hidden_size=24, num_hidden_layers=1),
        tokenizer,
        Dataset.from_list([{"input_ids": row, "labels": row} for row in ids]),
        config,
        model_dir=run.model_dir,
        callbacks=[MetricsCallback(metrics, "sft"), Die(dies_at)],
    )
    run.finish("sft", {"steps": result.steps, "processes": state.num_processes})
    leave_the_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
