"""Run by torchrun from test_shared_sampler.py: RLSP on two processes whose sampler only the main one can sync."""

import copy
import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.errors import RolloutError
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer
from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.train import leave_the_group


class Served:
    """Weights go from the main process to the others through `shared_policy` alone, as with servers."""

    def __init__(self, policy, fails_at, shift):
        self.inner = TransformersBackend(copy.deepcopy(policy), eos_token_ids=[2], pad_token_id=0)
        self.fails_at, self.shift = fails_at, shift
        self.calls = []
        self.shared_policy = None

    def sync(self, source, version):
        if version == self.fails_at:
            raise RolloutError("no server answers")
        self.calls.append(f"sync {version}")
        state = {name: value for name, value in source.state_dict().items() if not name.startswith("critic.")}
        self.shared_policy = {"state": {name: value.clone() for name, value in state.items()}, "version": version}
        self._load(self.shared_policy)

    def follow(self, policy):
        self.calls.append(f"follow {policy['version']}")
        self._load(policy)

    def _load(self, policy):
        self.inner.model.load_state_dict(policy["state"])
        self.inner.version = policy["version"]

    def generate(self, prompts, n, sampling, seeds):
        drawn = self.inner.generate(prompts, n, sampling, seeds)
        return [[self._shifted(sample) for sample in group] for group in drawn]

    def _shifted(self, sample):
        return type(sample)(
            sample.token_ids, tuple(p - self.shift for p in sample.logprobs), sample.stop_reason, sample.version
        )

    def wake(self):
        pass

    def sleep(self):
        pass


def lengths_reward(completions, completion_ids, **_):
    return [1.0 - len(ids) / 8 for ids in completion_ids]


def main(folder: Path, fails_at: int) -> None:
    tokenizer = countdown_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    policy = LlamaForCausalLM(config)
    start = copy.deepcopy(policy)
    rows = [{"prompt": row["prompt"], "answer": row["answer"]} for row in countdown_rows("train", 40)]
    args = RLSPConfig(
        str(folder / "out"), per_device_train_batch_size=4, steps_per_generation=2, max_completion_length=8,
        max_steps=4, learning_rate=1e-2, critic_warmup_rollouts=0, use_cpu=True, bf16=False,
        gradient_checkpointing=False, logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = RLSPTrainer(policy, lengths_reward, None, args, Dataset.from_list(rows), processing_class=tokenizer)
    rank = trainer.accelerator.process_index
    trainer.rollout_backend = backend = Served(start, fails_at, shift=0.01 * (1 + 2 * rank))
    error = None
    try:
        trainer.train()
    except RolloutError as caught:
        error = str(caught)
    report = {
        "processes": trainer.accelerator.num_processes,
        "error": error,
        "steps": trainer.state.global_step,
        "calls": backend.calls,
        "mean": [e["sampling/logp_difference_mean"] for e in trainer.state.log_history if "reward/total" in e],
        "max": [e["sampling/logp_difference_max"] for e in trainer.state.log_history if "reward/total" in e],
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(report))
    leave_the_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
