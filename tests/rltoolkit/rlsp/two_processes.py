"""Run by torchrun from test_two_processes.py: a few updates of RLSP, and what each process ended with."""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM

from reward_models.exploration import LengthExploration
from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer
from rltoolkit.train import leave_the_group


def lengths_reward(completions, completion_ids, **_):
    return [1.0 - len(ids) / 8 for ids in completion_ids]


def digest(parameters):
    return [float(p.detach().double().sum()) for p in parameters]


def main(folder: Path, warmup: int, options: dict) -> None:
    tokenizer = countdown_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    policy = LlamaForCausalLM(config)
    start = digest(policy.parameters())
    rows = [{"prompt": row["prompt"], "answer": row["answer"]} for row in countdown_rows("train", 40)]
    args = RLSPConfig(
        str(folder / "out"), per_device_train_batch_size=4, steps_per_generation=2, max_completion_length=8,
        max_steps=4,
        learning_rate=1e-3, critic_learning_rate=1e-2, critic_warmup_rollouts=warmup, weight_decay=0.1, use_cpu=True,
        bf16=False, logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True,
        **{"gradient_checkpointing": False, **options},
    )  # fmt: skip
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if args.critic == "lora" else None
    effort = LengthExploration(8) if args.advantage == "decoupled" else None
    trainer = RLSPTrainer(
        policy, lengths_reward, effort, args, Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora
    )
    trainer.train()
    rank = trainer.accelerator.process_index
    named = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    report = {
        "processes": trainer.accelerator.num_processes,
        "kind": trainer.accelerator.distributed_type.name,
        "start": start,
        "policy": digest(p for name, p in named.items() if "critic." not in name),
        "critic": digest(p for name, p in named.items() if "critic." in name),
        "frozen": digest(p for p in named.values() if not p.requires_grad),
        "rollout": args.generation_batch_size,
        "losses": [entry["policy/loss"] for entry in trainer.state.log_history if "policy/loss" in entry],
        "rollouts": [entry for entry in trainer.state.log_history if "reward/outcome" in entry],
        "remembered": {name: part.state_dict() for name, part in trainer._remembering.items()},
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(report))
    leave_the_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
