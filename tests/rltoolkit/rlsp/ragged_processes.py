"""Run by torchrun from test_ragged_processes.py: two ranks whose minibatches divide into different numbers of parts."""

import functools
import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer
from rltoolkit.rlsp.update import learning_parts
from rltoolkit.train import leave_the_group


def alternating(completion_ids, **_):
    """Every fifth sum is unscorable: ranks lose different rows."""
    scores = [sum(token % 2 for token in ids) / max(1, len(ids)) for ids in completion_ids]
    return [None if sum(ids) % 5 == 0 else score for ids, score in zip(completion_ids, scores, strict=True)]


def end_of(kind: str, folder: Path, *, whole: bool) -> dict:
    tokenizer = countdown_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    policy = LlamaForCausalLM(config)
    prompts = [row["prompt"] for row in countdown_rows("train", 40)]
    rows = [{"prompt": prompt * (1 + i % 3)} for i, prompt in enumerate(prompts)]  # ragged
    args = RLSPConfig(
        str(folder / "out"), per_device_train_batch_size=4, steps_per_generation=2, max_completion_length=8,
        gradient_accumulation_steps=2, num_iterations=2, max_steps=3, learning_rate=1e-2, critic_learning_rate=1e-2,
        critic=kind, critic_warmup_rollouts=0, optim="sgd", use_cpu=True, bf16=False, gradient_checkpointing=False,
        logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True, micro_batch_tokens=40,
    )  # fmt: skip
    trainer = RLSPTrainer(policy, alternating, None, args, Dataset.from_list(rows), processing_class=tokenizer)
    parts, divide = [], trainer._passes.parts
    if whole:
        divide = functools.partial(learning_parts, divide=lambda lengths: [list(range(len(lengths)))])
    trainer._passes.parts = lambda minibatch: parts.append(divide(minibatch)) or parts[-1]
    start = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    named = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    return {
        "processes": trainer.accelerator.num_processes,
        "parts": [len(part) for part in parts],
        "moved": {name: (parameter.detach() - start[name]).abs().max().item() for name, parameter in named.items()},
        "weights": {name: parameter.detach().flatten().tolist() for name, parameter in named.items()},
        "losses": [entry["policy/loss"] for entry in trainer.state.log_history if "policy/loss" in entry],
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    ends = {
        f"{kind} {name}": end_of(kind, folder, whole=name == "whole")
        for kind in ("separate", "shared")
        for name in ("parts", "whole")
    }
    rank = torch.distributed.get_rank()
    (folder / f"rank{rank}.json").write_text(json.dumps(ends))
    leave_the_group()
