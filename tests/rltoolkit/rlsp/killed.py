"""Run by test_killed.py: a training of RLSP that goes on where it stopped, and may die of kill -9 on the way.

Arguments: folder, the step behind which to die (0 for never), the rank that dies; -1 for a stop of all ranks instead,
which leaves a checkpoint inside a rollout.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from reward_models.exploration import LengthExploration
from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer
from rltoolkit.run.checkpoints import last_checkpoint
from rltoolkit.run.resume import allow_indexed_cpu, train_or_resume, was_last
from rltoolkit.train import leave_the_group


def coin(completion_ids, **_):
    return [float(ids[0] % 2) for ids in completion_ids]


class Dies(TrainerCallback):
    """Kills its own process, which can do nothing about it, after a step and its checkpoint."""

    def __init__(self, after):
        self.after = after

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.after:
            os.kill(os.getpid(), signal.SIGKILL)


class Stops(TrainerCallback):
    """Ends the training after a step; a checkpoint that waits for the end of its rollout is written then."""

    def __init__(self, after):
        self.after = after

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.after


def trainer_in(folder):
    tokenizer = countdown_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    # 2 updates per rollout, each from 2 micro-steps; 2 rollouts per epoch on one process
    args = RLSPConfig(
        str(folder), per_device_train_batch_size=2, steps_per_generation=2, num_iterations=2,
        gradient_accumulation_steps=2, max_steps=12, save_steps=1, max_completion_length=4, learning_rate=1e-3,
        critic_learning_rate=1e-2, critic_warmup_rollouts=1, weight_decay=0.1, kl_coef=0.1, advantage="decoupled",
        critic="shared", exploration_control="best", outcome_floor=0.9, prompt_curriculum="skip", curriculum_visits=1,
        curriculum_revisit=2, use_cpu=True, bf16=False, gradient_checkpointing=False, logging_steps=3, report_to=[],
        disable_tqdm=True,
    )  # fmt: skip
    prompts = countdown_rows("train", 8 * int(os.environ.get("WORLD_SIZE", "1")))
    rows = [{"prompt": row["prompt"], "answer": row["answer"]} for row in prompts]
    return RLSPTrainer(
        LlamaForCausalLM(config), coin, LengthExploration(target_tokens=4), args, Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip


def digest(value):
    """Of every bit of every tensor."""
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()[:16]
    if isinstance(value, dict):
        return {str(key): digest(part) for key, part in value.items()}
    return [digest(part) for part in value] if isinstance(value, list | tuple) else value


def logged(history):
    clocks = ("time", "per_second", "profiling")
    return [
        {key: value for key, value in line.items() if not any(clock in key for clock in clocks)} for line in history
    ]


def main(folder: Path, die_after: int, mortal: int) -> None:
    trainer = trainer_in(folder / "run")
    rank = trainer.accelerator.process_index
    found = last_checkpoint(folder / "run")
    if die_after and mortal in (rank, -1):
        trainer.add_callback(Stops(die_after) if mortal == -1 else Dies(die_after))
    if found is not None and was_last(found):  # stopped, which `train_or_resume` takes for the end
        allow_indexed_cpu()
        trainer.train(resume_from_checkpoint=str(found))
    else:
        train_or_resume(trainer, found)
    report = {
        "began": 0 if found is None else int(found.name.partition("-")[2]),
        "processes": trainer.accelerator.num_processes,
        "weights": digest(dict(trainer.accelerator.unwrap_model(trainer.model).state_dict())),
        "optimizer": digest(trainer.optimizer.state_dict()),
        "remembered": {name: part.state_dict() for name, part in trainer._remembering.items()},
        "log": logged(trainer.state.log_history),
        "random": digest(torch.get_rng_state()),
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(report))
    leave_the_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
