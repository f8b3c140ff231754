"""Run by torchrun from test_bad_rewards_by_two.py: rewards that go wrong on one of two processes, or on both."""

import json
import math
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.errors import RLToolkitError
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer
from rltoolkit.train import leave_the_group

RANK = int(os.environ["RANK"])


def good(completion_ids, **_):
    return [1.0 - len(ids) / 8 for ids in completion_ids]


def raises_on_one(completion_ids, **_):
    return [0.0 / RANK for _ in completion_ids]  # rank 0 divides by zero


def too_few_on_one(completion_ids, **_):
    return good(completion_ids)[RANK:]


def mean_on_one(completion_ids, **_):
    scores = good(completion_ids)
    return torch.tensor(scores).mean() if RANK == 0 else scores


def none_on_one(completion_ids, **_):
    return good(completion_ids) if RANK == 0 else [None, math.nan] * (len(completion_ids) // 2)


class NoneAtFirst:
    """No score in the first rollout, on any process."""

    calls = 0

    def __call__(self, completion_ids, **_):
        self.calls += 1
        return [None] * len(completion_ids) if self.calls == 1 else good(completion_ids)


def no_rate_on_one(completion_ids, **_):
    return [1.0 + 2.0 * RANK] * len(completion_ids)


def weights(trainer):
    named = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    return [float(p.detach().double().sum()) for p in named.values()]


def train(folder, outcome, **options):
    tokenizer = countdown_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    rows = [{"prompt": row["prompt"], "answer": row["answer"]} for row in countdown_rows("train", 40)]
    settings = {
        "per_device_train_batch_size": 4, "steps_per_generation": 2, "max_completion_length": 8, "max_steps": 2,
        "learning_rate": 1e-3, "critic_learning_rate": 1e-2, "critic_warmup_rollouts": 0, "weight_decay": 0.1,
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1, "report_to": [],
        "save_strategy": "no", "disable_tqdm": True, **options,
    }  # fmt: skip
    trainer = RLSPTrainer(
        LlamaForCausalLM(config), outcome, None, RLSPConfig(str(folder / "out"), **settings), Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    before, error = weights(trainer), None
    try:
        trainer.train()
    except RLToolkitError as raised:
        error = str(raised)
    lines = trainer.state.log_history
    return {
        "error": error,
        "before": before,
        "after": weights(trainer),
        "unscorable": [line["reward/unscorable"] for line in lines if "reward/unscorable" in line],
        "not_finite": [line["reward/outcome_not_finite"] for line in lines if "reward/outcome_not_finite" in line],
        "skipped": [line["updates_skipped"] for line in lines if "updates_skipped" in line],
        "remembered": {name: part.state_dict() for name, part in trainer._remembering.items()},
    }


def main(folder: Path) -> None:
    report = {
        "raises_on_one": train(folder, raises_on_one),
        "too_few_on_one": train(folder, too_few_on_one),
        "mean_on_one": train(folder, mean_on_one),
        "none_on_one": train(folder, none_on_one),
        "none_at_first": train(folder, NoneAtFirst(), max_steps=3),
        "no_rate_on_one": train(folder, no_rate_on_one, prompt_curriculum="skip"),
        "curriculum": train(folder, good, prompt_curriculum="skip", curriculum_visits=1),
    }
    (folder / f"rank{RANK}.json").write_text(json.dumps(report))
    leave_the_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
