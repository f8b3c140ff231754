"""Run by torchrun from test_watched_by_two.py: RLSP that drifts into hacking, and what each process saw of it."""

import dataclasses
import json
import logging
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from reward_models.exploration import LengthExploration
from reward_models.reward_func import as_reward_func
from reward_models.verdict import Verdict
from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer
from rltoolkit.rlsp.watch.alarm import Mean
from rltoolkit.train import leave_the_group

BOX = "}"


class NoBracketIsRight:
    """Right is a response without a closing bracket: the longer, the rarer."""

    def check(self, response, reference):
        return Verdict.wrong(response) if BOX in response else Verdict.correct(response)


def rows_of(split, count):
    return Dataset.from_list([{"prompt": r["prompt"], "answer": r["answer"]} for r in countdown_rows(split, count)])


def main(folder: Path) -> None:
    tokenizer = countdown_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    policy = LlamaForCausalLM(config)
    args = RLSPConfig(
        str(folder / "out"), per_device_train_batch_size=8, per_device_eval_batch_size=40, steps_per_generation=2,
        max_completion_length=16, max_steps=4, eval_strategy="steps", eval_steps=2, learning_rate=1e-3,
        critic_learning_rate=1e-2, critic_warmup_rollouts=0, use_cpu=True, bf16=False, gradient_checkpointing=False,
        logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True, kl_coef=0.0,
    )  # fmt: skip
    samples = []
    trainer = RLSPTrainer(
        policy, as_reward_func(NoBracketIsRight(), pool=False), LengthExploration(16), args, rows_of("train", 64),
        eval_dataset=rows_of("test", 80), processing_class=tokenizer,
        sample_sink=lambda step, rank, rows: samples.extend(dataclasses.asdict(row) | {"rank": rank} for row in rows),
    )  # fmt: skip
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("rltoolkit.rlsp.watch.observer").addHandler(handler)
    # Measured before training by a policy that was right far more often and explored less, as the alarm is told here:
    # a real drift takes longer than a test of two processes should.
    trainer.alarm.saw(1000, 100.0, 10.0, [])
    trainer.alarm.judge(-1, {"eval": Mean.of_share(0.99, 500)})
    trainer.train()
    report = {
        "rank": trainer.accelerator.process_index,
        "processes": trainer.accelerator.num_processes,
        "alarm": trainer.alarm.state_dict(),
        "heard": heard,
        "samples": samples,
        "history": [{k: v for k, v in e.items() if "time" not in k} for e in trainer.state.log_history],
    }
    (folder / f"rank{trainer.accelerator.process_index}.json").write_text(json.dumps(report))
    leave_the_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
