"""Run by torchrun from test_reward_two_processes.py: GRPO on two processes, each with a pool of its own."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from datasets import Dataset
from misbehaving_verifiers import EvenDigits
from trl import GRPOConfig, GRPOTrainer

from reward_models import Outcome, as_reward_func
from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.train import leave_the_group


def main(folder: Path) -> None:
    tokenizer = countdown_tokenizer()
    policy = countdown_model(0, tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
    # A rollout has two prompts, one a process: the first process meets the references that cannot be read.
    rows = [{"prompt": f"{n},3,5>9\n", "gold": ["damaged", "good"][n % 2]} for n in range(8)]
    args = GRPOConfig(
        str(folder / "out"), per_device_train_batch_size=4, num_generations=4, max_completion_length=8, max_steps=3,
        learning_rate=1e-2, shuffle_dataset=False, use_cpu=True, bf16=False, gradient_checkpointing=False,
        logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    function = as_reward_func(EvenDigits(), column="gold")
    trainer = GRPOTrainer(policy, function, args, Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    report = {
        "processes": trainer.accelerator.num_processes,
        "counts": {str(outcome): function.counts[outcome] for outcome in Outcome},
        "logged": {
            str(outcome): [entry[key] for entry in trainer.state.log_history if (key := f"verdict/{outcome}") in entry]
            for outcome in Outcome
        },
        "policy": [float(p.detach().double().sum()) for p in model.parameters()],
    }
    (folder / f"rank{trainer.accelerator.process_index}.json").write_text(json.dumps(report))
    leave_the_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
