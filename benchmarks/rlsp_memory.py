"""Peak memory of RLSP with each kind of critic, and of TRL's GRPO, on one model and one batch.

    python benchmarks/rlsp_memory.py

Two updates in a fresh process per case, on a random Llama whose weights dominate; the peak above what the process
held after a training of a tiny model, by which all libraries are loaded: resident memory on a CPU, torch's allocator
on CUDA. Both trainers get the same prompts, responses of the same length (no end token before it), a KL term of the
same weight, and sample with `generate`. GRPO has groups of `micro_batch` responses, RLSP one response per prompt.

The minibatch is the same, the pass is not: where the critic has a pass of its own (separate, lora), RLSP by default
divides a minibatch so that policy and critic together hold the activations of one, here of 2 rows each at a time;
GRPO and the shared critic hold those of all 4. Writes benchmarks/results/rlsp_memory.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

RESULT = Path(__file__).parent / "results" / "rlsp_memory.json"
GIB = 1024**3
CRITICS = ("separate", "lora", "shared")
GRPO = "GRPO"


@dataclass(frozen=True)
class Sizes:
    """The model and the batch; the same for every case."""

    hidden: int = 512
    intermediate: int = 1408
    layers: int = 10
    heads: int = 8
    kv_heads: int = 4
    vocab: int = 8192
    micro_batch: int = 4
    prompt_tokens: int = 16
    new_tokens: int = 48
    policy_rank: int = 16
    critic_rank: int = 16
    kl_coef: float = 0.05


TINY = Sizes(hidden=32, intermediate=64, layers=2, heads=2, kv_heads=2, vocab=64, new_tokens=8)


@dataclass(frozen=True)
class Case:
    """One trainer: GRPO, or RLSP with a kind of critic; the policy trained as a whole or by LoRA."""

    trainer: str
    lora: bool

    def __str__(self) -> str:
        name = self.trainer if self.trainer == GRPO else f"RLSP, critic {self.trainer}"
        return f"{name}, {'LoRA' if self.lora else 'full'} policy"


CASES = tuple(
    Case(trainer, lora)
    for lora in (False, True)
    for trainer in (GRPO, *CRITICS)
    if lora or trainer != "lora"  # a critic that is an adapter needs a frozen base
)


def main() -> int:
    """Run every case in processes of its own, in turns, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", help="run one case in this process (used by the script itself)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand parameters: does it run at all?")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.case is not None:
        given = json.loads(options.case)
        print(json.dumps(measure(Case(**given["case"]), Sizes(**given["sizes"]))))
        return 0
    sizes = TINY if options.tiny else Sizes()
    runs: dict[Case, list[dict[str, Any]]] = {case: [] for case in CASES}
    for turn in range(options.repetitions):
        for case in CASES:
            runs[case].append(_in_fresh_process(case, sizes))
            print(f"{turn + 1}: {case}: {runs[case][-1]['peak_gib']:.3f} GiB", flush=True)
    report = {**_provenance(options.repetitions), "sizes": asdict(sizes), "cases": summary(runs)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {options.out}")
    return 0


def summary(runs: dict[Case, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row per case: the median peak, all of them, and the ratio to GRPO with the same kind of policy."""
    peaks = {case: [run["peak_gib"] for run in found] for case, found in runs.items()}
    return [
        {
            "name": str(case),
            **asdict(case),
            "peak_gib": median(peaks[case]),
            "peaks_gib": peaks[case],
            "over_grpo": median(peaks[case]) / median(peaks[Case(GRPO, case.lora)]),
            **{key: value for key, value in found[0].items() if key != "peak_gib"},
        }
        for case, found in runs.items()
    ]


def measure(case: Case, sizes: Sizes) -> dict[str, Any]:
    """Train the case here; its peak in GiB, what is trained, and for RLSP what `rltoolkit check` estimates."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="rlsp-memory-") as folder:
        _save_model(Path(folder) / "tiny", TINY)
        _save_model(Path(folder) / "model", sizes)
        trainer_of(case, TINY, folder, "tiny").train()  # what libraries load and keep is there now
        gc.collect()
        resting = _now(torch)
        _reset_peak(torch)
        trainer = trainer_of(case, sizes, folder, "model")
        trainer.train()
        peak = _peak(torch)
    parameters = list(trainer.model.parameters())
    row = {
        "peak_gib": (peak - resting) / GIB,
        "weights_gib": sum(p.numel() * p.element_size() for p in parameters) / GIB,
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }
    return row if case.trainer == GRPO else row | {"estimate_gib": _estimate(case, sizes, torch)}


def trainer_of(case: Case, sizes: Sizes, folder: str, name: str) -> Any:
    """A trainer of the case; GRPO's reference is read from the model's folder, RLSP's is a copy."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    from rltoolkit.embedded.countdown import countdown_rows
    from rltoolkit.embedded.models import countdown_tokenizer
    from rltoolkit.rlsp.config import RLSPConfig
    from rltoolkit.rlsp.trainer import RLSPTrainer

    on_gpu = torch.cuda.is_available()
    shared = {
        "output_dir": f"{folder}/out", "use_cpu": not on_gpu, "bf16": False, "max_steps": 2,
        "report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "learning_rate": 1e-6,
        "per_device_train_batch_size": sizes.micro_batch, "steps_per_generation": 1,
        "max_completion_length": sizes.new_tokens, "gradient_checkpointing": False,
        "generation_kwargs": {"min_new_tokens": sizes.new_tokens},
    }  # fmt: skip
    rows = [{**row, "prompt": (row["prompt"] * 9)[: sizes.prompt_tokens]} for row in countdown_rows("train", 64)]
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/{name}", dtype=torch.float32)
    rank = sizes.policy_rank
    lora = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM") if case.lora else None
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": countdown_tokenizer(), "peft_config": lora}
    if case.trainer == GRPO:
        config = GRPOConfig(**shared, beta=sizes.kl_coef, num_generations=sizes.micro_batch)
        return GRPOTrainer(model, _first_token, config, **given)
    args = RLSPConfig(
        **shared, kl_coef=sizes.kl_coef, critic=case.trainer, critic_lora_r=sizes.critic_rank, critic_warmup_rollouts=0
    )
    return RLSPTrainer(model, _first_token, None, args, **given)


def _first_token(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [ids[0] % 2 for ids in completion_ids]


def _save_model(folder: Path, sizes: Sizes) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rltoolkit.embedded.models import countdown_tokenizer

    tokenizer = countdown_tokenizer()
    config = LlamaConfig(
        hidden_size=sizes.hidden, intermediate_size=sizes.intermediate, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.kv_heads, vocab_size=sizes.vocab,
        max_position_embeddings=sizes.prompt_tokens + sizes.new_tokens, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def _estimate(case: Case, sizes: Sizes, torch: Any) -> float:
    from rltoolkit.check.memory import LoraPlan, TrainPlan, estimate_memory
    from rltoolkit.check.model_shape import ModelShape

    shape = ModelShape(
        hidden=sizes.hidden, intermediate=sizes.intermediate, layers=sizes.layers, heads=sizes.heads,
        kv_heads=sizes.kv_heads, head_dim=sizes.hidden // sizes.heads, vocab=sizes.vocab,
    )  # fmt: skip
    plan = TrainPlan(
        micro_batch=sizes.micro_batch, prompt_tokens=sizes.prompt_tokens, new_tokens=sizes.new_tokens,
        rollout_rows=sizes.micro_batch, critic=shape if case.trainer == "separate" else None,
        critic_kind=case.trainer,  # type: ignore[arg-type]
        critic_rank=sizes.critic_rank, lora=LoraPlan(sizes.policy_rank) if case.lora else None,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )  # fmt: skip
    return estimate_memory(shape, plan).peak_gib


def _now(torch: Any) -> int:
    return int(torch.cuda.memory_allocated()) if torch.cuda.is_available() else _status_bytes("VmRSS")


def _reset_peak(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's way to reset VmHWM


def _peak(torch: Any) -> int:
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}; this benchmark needs Linux")


def _in_fresh_process(case: Case, sizes: Sizes) -> dict[str, Any]:
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        # Freed memory goes back to the system at once; glibc would otherwise keep it and blur the peak.
        "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072",
    }  # fmt: skip
    given = json.dumps({"case": asdict(case), "sizes": asdict(sizes)})
    command = [sys.executable, __file__, "--case", given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{case} failed:\n{done.stderr[-3000:]}")
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def _provenance(repetitions: int) -> dict[str, Any]:
    packages = ("rltoolkit", "torch", "transformers", "trl", "accelerate", "peft")
    return {
        "what": "peak memory above the resting process, two updates, fresh process per case and repetition, in turns",
        "command": "python benchmarks/rlsp_memory.py",
        "repetitions": repetitions,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                    "python": platform.python_version(), "system": platform.system()},
        "versions": {name: version(name) for name in packages},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
