"""Compare the memory estimate of `rltoolkit check` with the peak of a real run.

    python benchmarks/memory_estimate.py

Trains RLSP for two updates in a fresh process on a random Llama, and reads the peak above what the process
held after its imports: resident memory on a CPU, torch's allocator on CUDA. Writes
benchmarks/results/memory_estimate.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "memory_estimate.json"
GIB = 1024**3


@dataclass(frozen=True)
class Case:
    """One run: the sizes of the model and of the batches."""

    name: str
    hidden: int = 384
    intermediate: int = 1024
    layers: int = 8
    heads: int = 6
    kv_heads: int = 2
    vocab: int = 8192
    micro_batch: int = 8
    accumulation: int = 1
    prompt_tokens: int = 16
    new_tokens: int = 48
    gradient_checkpointing: bool = False
    kl_coef: float = 0.05
    lora: bool = False
    dtype: str = "float32"


IMPORTS = (
    "datasets",
    "peft",
    "transformers.models.llama",
    "rltoolkit.rlsp.trainer",
    "rltoolkit.rollout.transformers_backend",
)
CASES = (
    Case("states dominate", hidden=512, intermediate=1408, layers=10, heads=8, kv_heads=4, micro_batch=4),
    Case("activations dominate", micro_batch=16, new_tokens=112),
    Case("gradient checkpointing", micro_batch=16, new_tokens=112, gradient_checkpointing=True),
    Case("large vocabulary", vocab=32768),
    Case("no reference", kl_coef=0.0),
    Case("LoRA", lora=True, micro_batch=16),
)


def main() -> int:
    """Run every case in a process of its own and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", help="run one case in this process (used by the script itself)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", help="run the case of this name alone")
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(Case(**json.loads(options.case)))))
        return 0
    rows = []
    for case in CASES:
        if options.only not in (None, case.name):
            continue
        row = _in_fresh_process(case)
        rows.append(row)
        numbers = f"estimate {row['estimate_gib']:.3f} GiB, measured {row['measured_gib']:.3f} GiB"
        print(f"{case.name:>24}: {numbers}, ratio {row['ratio']:.3f} (peak in {row['peak_phase']})", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**_provenance(), "cases": rows}, indent=1) + "\n")
    print(f"written to {options.out}")
    return 0


def measure(case: Case) -> dict[str, Any]:
    """Train the case here; the estimate beside the measured peak, in GiB."""
    import torch

    from rltoolkit.check.memory import estimate_memory

    folder = Path(tempfile.mkdtemp(prefix="memory-estimate-"))
    _import_everything()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    before = _held_bytes(torch)
    _reset_peak(torch)
    model, peak = _train(case, folder, torch)
    estimate = estimate_memory(_shape(model), _plan(case, model, torch))
    measured = (peak - before) / GIB
    return {
        "case": asdict(case),
        "parameters": sum(p.numel() for name, p in model.named_parameters() if "critic." not in name),
        "estimate_gib": estimate.peak_gib,
        "measured_gib": measured,
        "ratio": estimate.peak_gib / measured,
        "peak_phase": estimate.peak_phase,
        "items_gib": {item.name: item.gibibytes for item in estimate.items},
    }


def _import_everything() -> None:
    """Everything that the run imports, so that the baseline holds the libraries."""
    for module in IMPORTS:
        importlib.import_module(module)


def _train(case: Case, folder: Path, torch: Any) -> tuple[Any, int]:
    """Two updates of RLSP; the model and the highest memory that the process held, in bytes."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import LlamaConfig, LlamaForCausalLM

    from reward_models import CountdownVerifier
    from rltoolkit.embedded.countdown import countdown_rows
    from rltoolkit.embedded.models import countdown_tokenizer
    from rltoolkit.rlsp.config import RLSPConfig
    from rltoolkit.rlsp.trainer import RLSPTrainer
    from rltoolkit.rollout.transformers_backend import TransformersBackend

    tokenizer = countdown_tokenizer()
    config = LlamaConfig(
        hidden_size=case.hidden, intermediate_size=case.intermediate, num_hidden_layers=case.layers,
        num_attention_heads=case.heads, num_key_value_heads=case.kv_heads, vocab_size=case.vocab,
        max_position_embeddings=case.prompt_tokens + case.new_tokens, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(getattr(torch, case.dtype))
    on_gpu = torch.cuda.is_available()
    args = RLSPConfig(
        output_dir=str(folder), use_cpu=not on_gpu, bf16=False, max_steps=2, report_to="none", save_strategy="no",
        logging_steps=1, per_device_train_batch_size=case.micro_batch,
        gradient_accumulation_steps=case.accumulation, steps_per_generation=case.accumulation,
        max_completion_length=case.new_tokens, gradient_checkpointing=case.gradient_checkpointing,
        kl_coef=case.kl_coef, critic_warmup_rollouts=0, learning_rate=1e-6, disable_tqdm=True,
    )  # fmt: skip
    # Prompts of one length, and no end token: every response reaches the limit, as the estimate assumes.
    length = case.prompt_tokens
    rows = [{**row, "prompt": (row["prompt"] * 9)[:length]} for row in countdown_rows("train", 64)]
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM") if case.lora else None
    trainer = RLSPTrainer(
        model, CountdownVerifier(), None, args, Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora,
        rollout_backend=None if case.lora else TransformersBackend(model, eos_token_ids=[case.vocab + 1]),
    )  # fmt: skip
    trainer.train()
    return model, _peak_bytes(torch)


def _shape(model: Any) -> Any:
    from rltoolkit.check.model_shape import ModelShape

    return ModelShape.from_config(model.config.to_dict())


def _plan(case: Case, model: Any, torch: Any) -> Any:
    from rltoolkit.check.memory import LoraPlan, TrainPlan

    return TrainPlan(
        micro_batch=case.micro_batch,
        prompt_tokens=case.prompt_tokens,
        new_tokens=case.new_tokens,
        rollout_rows=case.micro_batch * case.accumulation,
        weight_bytes={"float32": 4, "bfloat16": 2}[case.dtype],
        gradient_checkpointing=case.gradient_checkpointing,
        accumulates=case.accumulation > 1,
        critic=_shape(model),
        reference=case.kl_coef > 0,
        lora=LoraPlan(16) if case.lora else None,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _held_bytes(torch: Any) -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return _status_bytes("VmRSS")


def _reset_peak(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's way to reset VmHWM


def _peak_bytes(torch: Any) -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}; this benchmark needs Linux")


def _in_fresh_process(case: Case) -> dict[str, Any]:
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        # Freed memory goes back to the system at once; glibc would otherwise keep it and blur the peak.
        "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072",
    }  # fmt: skip
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"case {case.name!r} failed:\n{done.stderr[-3000:]}")
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def _provenance() -> dict[str, Any]:
    packages = ("rltoolkit", "torch", "transformers", "trl", "accelerate", "peft")
    return {
        "what": "estimate_memory against the measured peak of RLSPTrainer, two updates, fresh process per case",
        "command": "python benchmarks/memory_estimate.py",
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                    "python": platform.python_version(), "system": platform.system()},
        "versions": {name: version(name) for name in packages},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
