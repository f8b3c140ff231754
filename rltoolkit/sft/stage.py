"""SFT on TRL's SFTTrainer, from demonstrations as token ids to a clean model folder.

The trainer gets `input_ids` and `labels` ready made (see `rltoolkit.data.demonstrations`), so that the prompt's ids
are those that sampling starts from, the prompt carries no loss, and the end-of-sequence token does.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from rltoolkit.errors import DataError
from rltoolkit.run.atomic import replacing_folder
from rltoolkit.run.callback import show_progress
from rltoolkit.run.checkpoints import last_checkpoint
from rltoolkit.run.resume import train_or_resume

COLUMNS = ["input_ids", "labels"]
SHOWN = ("loss", "mean_token_accuracy")  # of the numbers that are logged, those on the progress bar
FILES_OF_THE_TRAINER = ("training_args.bin", "README.md")  # no part of a model; the first is a pickle


@dataclass(frozen=True)
class SftResult:
    """What a finished stage leaves."""

    model: PreTrainedModel | PeftModel  # unwrapped, adapters merged where that is exact
    steps: int  # optimiser steps, those of earlier starts included
    loss: float | None  # the last that was logged, in nats per supervised token; None if none was
    seconds: float  # of this start
    resumed_from: Path | None


def run_sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    config: SFTConfig,
    *,
    model_dir: Path,
    peft_config: PeftConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> SftResult:
    """Train `model` on `dataset` (columns `input_ids`, `labels`), save it to `model_dir`, and return it.

    Continues from the last complete checkpoint in `config.output_dir`, if there is one, and ends with the weights of
    an uninterrupted run. `model_dir` gets the model and its tokenizer and nothing else, in one step at the end; an
    adapter is merged into the model first, unless the model is quantized or sharded over processes, in which case
    the folder holds the adapter. Call it on every process. Raises DataError for a dataset without these columns.
    """
    started = time.monotonic()
    missing = [name for name in COLUMNS if name not in dataset.column_names]
    if missing:
        found = ", ".join(dataset.column_names)
        raise DataError(f"SFT needs columns {', '.join(missing)}, found {found}; make them with build_demonstrations")
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=dataset.select_columns(COLUMNS),
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=list(callbacks),
    )
    show_progress(trainer, "sft", SHOWN)
    checkpoint = last_checkpoint(Path(config.output_dir))
    train_or_resume(trainer, checkpoint)
    trained = _save(trainer, tokenizer, model_dir)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return SftResult(
        model=trained,
        steps=trainer.state.global_step,
        loss=losses[-1] if losses else None,
        seconds=time.monotonic() - started,
        resumed_from=checkpoint,
    )


def _save(trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, model_dir: Path) -> PreTrainedModel | PeftModel:
    """Write `model_dir` from the main process, after every process has done its part in gathering the weights."""
    is_main = trainer.is_world_process_zero()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel) and _can_merge(trainer, model):
        model = model.merge_and_unload()
        if is_main:
            with replacing_folder(model_dir) as folder:
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
    else:
        with replacing_folder(model_dir, is_main=is_main) as folder:
            trainer.save_model(str(folder))
            if is_main:
                for name in FILES_OF_THE_TRAINER:
                    (folder / name).unlink(missing_ok=True)
    trainer.accelerator.wait_for_everyone()
    return model.eval()


def _can_merge(trainer: SFTTrainer, model: PeftModel) -> bool:
    base = model.get_base_model()
    quantized = getattr(base, "is_loaded_in_4bit", False) or getattr(base, "is_loaded_in_8bit", False)
    return not quantized and not trainer.is_fsdp_enabled and not trainer.is_deepspeed_enabled
