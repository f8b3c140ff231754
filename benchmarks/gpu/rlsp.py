"""RLSP against TRL's own GRPO on one GPU: sampled tokens per second and peak memory, full fine-tuning and LoRA.

Both trainers run in one process, one after the other, on the same random model, prompts, precision and batch; each
update is timed, medians and spread are reported over the updates after the first rollout. A model with random weights
costs what a trained one costs; nothing is said about learning.

    python benchmarks/gpu/rlsp.py                       # bfloat16, 0.5B parameters, on CUDA
    python benchmarks/gpu/rlsp.py --size tiny           # a smoke test, also without a GPU
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer
from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.run.versions import collect_versions

RESULT = Path(__file__).parents[1] / "results" / "gpu_rlsp.json"
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "0.5b": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 28, "num_attention_heads": 16},
    "1.5b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
}
VOCABULARY = {"tiny": 64, "0.5b": 32_000, "1.5b": 32_000}


class UpdateTimes(TrainerCallback):  # type: ignore[misc]
    """Seconds of each update, rollouts included, with the device idle at both ends."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0

    def on_step_begin(self, *_: Any, **_kwargs: Any) -> None:
        """Start the clock."""
        synchronize()
        self._begun = time.perf_counter()

    def on_step_end(self, *_: Any, **_kwargs: Any) -> None:
        """Stop the clock."""
        synchronize()
        self.seconds.append(time.perf_counter() - self._begun)


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def save_model(size: str, folder: str) -> str:
    """Write a random Llama, the same for each trainer, and return its folder: GRPO loads its reference from there."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY[size], max_position_embeddings=4096, eos_token_id=2, pad_token_id=0, **SIZES[size]
    )
    LlamaForCausalLM(config).save_pretrained(f"{folder}/start")
    return f"{folder}/start"


def token_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Something to learn that costs nothing to judge."""
    return [sum(token % 2 for token in ids) / max(1, len(ids)) for ids in completion_ids]


def settings(folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """What both trainers share."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": folder, "per_device_train_batch_size": options.micro_batch, "steps_per_generation": 4,
        "gradient_accumulation_steps": 1, "max_steps": options.updates, "max_completion_length": options.new_tokens,
        "learning_rate": 1e-6, "bf16": on_gpu, "use_cpu": not on_gpu, "gradient_checkpointing": on_gpu, "report_to": [],
        "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one trainer and return its figures."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    rows = Dataset.from_list(
        [{"prompt": row["prompt"], "answer": row["answer"]} for row in countdown_rows("train", 4096)]
    )
    times, tokenizer = UpdateTimes(), countdown_tokenizer()
    lora = (
        LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM") if "LoRA" in name else None
    )
    with tempfile.TemporaryDirectory() as folder:
        model, shared = save_model(options.size, folder), settings(folder, options)
        trainer: GRPOTrainer
        if name.startswith("RLSP"):
            args = RLSPConfig(**shared, critic_warmup_rollouts=0, kl_coef=0.05)
            trainer = RLSPTrainer(
                model, token_reward, None, args, rows, processing_class=tokenizer, peft_config=lora, callbacks=[times]
            )
            if "own sampler" in name:
                trainer.rollout_backend = TransformersBackend(trainer.model, eos_token_ids=[2], pad_token_id=0)
        else:
            args = GRPOConfig(**shared, num_generations=4, beta=0.05)
            trainer = GRPOTrainer(
                model, token_reward, args, rows, processing_class=tokenizer, peft_config=lora, callbacks=[times]
            )
        trainer.train()
        history = trainer.state.log_history
        parameters = sum(p.numel() for p in trainer.model.parameters())
    timed = times.seconds[4:]  # the first rollout warms up
    tokens = options.micro_batch * statistics.fmean(
        e["completions/mean_length"] for e in history if "completions/mean_length" in e
    )
    rounds = [sum(timed[i : i + 4]) for i in range(0, len(timed) - 3, 4)]
    return {
        "trainer": name,
        "seconds_per_rollout_median": statistics.median(rounds),
        "seconds_per_rollout_spread": [min(rounds), max(rounds)],
        "sampled_tokens_per_second": 4 * tokens / statistics.median(rounds),
        "peak_gib": torch.cuda.max_memory_allocated() / 1024**3 if torch.cuda.is_available() else None,
        "parameters": parameters,  # the critic's included
        "last_loss": next((entry["loss"] for entry in reversed(history) if "loss" in entry), None),
    }


def main() -> None:
    """Measure every trainer in turn, write the JSON, print a short table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="0.5b")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--updates", type=int, default=24, help="a multiple of 4; the first 4 are not timed")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    names = ("GRPO", "RLSP", "RLSP own sampler", "GRPO LoRA", "RLSP LoRA")
    figures = [measure(name, options) for name in names]
    record = {
        "command": "python benchmarks/gpu/rlsp.py " + " ".join(sys.argv[1:]),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": collect_versions(),
        "options": {key: str(value) for key, value in vars(options).items() if key != "out"},
        "figures": figures,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    for row in figures:
        peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f} GiB"
        print(f"{row['trainer']:18} {row['sampled_tokens_per_second']:10.0f} tokens/s   {peak}")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
