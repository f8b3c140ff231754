"""RLSP against TRL's GRPO: wall time per sampled token and peak memory, by kind of critic.

Both trainers get the same random Qwen2, the same prompts in the same order, batch, precision and number of updates, and
responses of the same lengths: a logits processor forces the end token where a seeded lognormal draw says (10 times
between the 5th and the 95th percentile). GRPO's beta is RLSP's KL coefficient, so that both ask the reference. The LoRA
critic is compared with GRPO training the same LoRA. Every measurement is a process of its own; kinds take turns, and a
ratio is between neighbours of one turn. Seconds of processor time stand beside those of the clock: on a busy machine
they are the better witness. A model with random weights costs what a trained one costs; nothing is said about learning.

    python benchmarks/rlsp_vs_grpo.py                      # 4M parameters, float32, CPU
    python benchmarks/rlsp_vs_grpo.py --size 0.5b          # under bfloat16 autocast, on CUDA
    python benchmarks/rlsp_vs_grpo.py --size tiny --repetitions 1 --rollouts 1 --out /dev/null   # a smoke test
"""

import argparse
import json
import math
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor, nn
from transformers import LogitsProcessor, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer
from rltoolkit.run.versions import collect_versions

RESULTS = Path(__file__).parent / "results"
UPDATES = 4  # of one rollout
GROUP = 4  # responses per prompt, in both trainers
KL = 0.05
SPREAD = 10.0
SIGMA = math.log(SPREAD) / (2 * 1.645)
TARGETS = {"shared": 1.0, "lora": 1.3, "separate": 1.5}
BASELINES = {"shared": "grpo", "separate": "grpo", "lora": "grpo_lora"}
KINDS = ("grpo", "shared", "separate", "grpo_lora", "lora")
END, PAD = 2, 0


@dataclass(frozen=True)
class Size:
    """A model, and responses that fit it; `rows` are those of one update."""

    model: dict[str, int]
    rows: int
    new_tokens: int
    median: int


def _qwen2(vocabulary: int, hidden: int, inner: int, layers: int, heads: int, groups: int) -> dict[str, int]:
    return {
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": groups,
    }  # fmt: skip


SIZES = {
    "tiny": Size(_qwen2(64, 32, 64, 2, 2, 2), rows=4, new_tokens=32, median=8),
    "4m": Size(_qwen2(2048, 192, 768, 6, 4, 2), rows=8, new_tokens=256, median=64),
    "0.5b": Size(_qwen2(151_936, 896, 4864, 24, 14, 2), rows=16, new_tokens=1024, median=256),
    "1.5b": Size(_qwen2(151_936, 1536, 8960, 28, 12, 2), rows=16, new_tokens=1024, median=256),
}


class ForcedLengths(LogitsProcessor):  # type: ignore[misc]
    """Ends every row at a length of its own: the end token is impossible before, and certain there."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = torch.tensor(lengths)
        self._steps = 0

    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores of the next token, with the end token set."""
        self._steps += 1
        ends = (self._lengths.to(scores.device) <= self._steps).unsqueeze(1)
        is_end = torch.arange(scores.size(1), device=scores.device) == END
        return scores.masked_fill(is_end != ends, -torch.inf)


def response_lengths(size: Size, rows: int, call: int) -> list[int]:
    """Lengths of the responses of one call of `generate`, the same for every trainer."""
    draw = random.Random(1_000_003 * call + rows)
    drawn = (size.median * math.exp(draw.gauss(0.0, SIGMA)) for _ in range(rows))
    return [min(size.new_tokens, max(2, round(length))) for length in drawn]


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds and trunk positions by phase, from the end of the first rollout on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.positions: dict[str, int] = defaultdict(int)
        self.tokens = 0
        self.phase = "update"
        self._begun = self._processor_begun = 0.0

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Begin after the first rollout, which warms up; stop whenever a rollout is done with."""
        synchronize()
        if state.global_step == UPDATES:
            self.seconds.clear()
            self.positions.clear()
            self.tokens, self._begun, self._processor_begun = 0, time.perf_counter(), time.process_time()
        elif state.global_step % UPDATES == 0:
            self.seconds["total"] = time.perf_counter() - self._begun
            self.seconds["processor"] = time.process_time() - self._processor_begun

    def timed(self, owner: Any, method: str, phase: str) -> None:
        """Count the seconds of a method under `phase`."""
        inner = getattr(owner, method)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before, self.phase = self.phase, phase
            synchronize()
            begun = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                synchronize()
                self.seconds[phase] += time.perf_counter() - begun
                self.phase = before

        setattr(owner, method, wrapped)

    def counted(self, backbone: nn.Module, who: str) -> None:
        """Count the positions that a backbone reads, by phase."""

        def count(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
            self.positions[f"{self.phase}/{who}"] += ids.numel()

        backbone.register_forward_pre_hook(count, with_kwargs=True)


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def token_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Something to learn that costs nothing to judge."""
    return [sum(token % 2 for token in ids) / max(1, len(ids)) for ids in completion_ids]


def prompts() -> Dataset:
    """Prompts of one to four Countdown problems each: ragged, too."""
    texts = [row["prompt"] for row in countdown_rows("train", 2048)]
    draw = random.Random(0)
    return Dataset.from_list([{"prompt": "".join(draw.sample(texts, draw.randint(1, 4)))} for _ in range(512)])


def save_model(size: Size, folder: str) -> str:
    """Write a random Qwen2, the same for each trainer, and return its folder: GRPO loads its reference from there."""
    torch.manual_seed(0)
    config = Qwen2Config(
        **size.model, max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=1, eos_token_id=END,
        pad_token_id=PAD,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(f"{folder}/start")
    return f"{folder}/start"


def make_trainer(kind: str, size: Size, rollouts: int, folder: str, clock: Clock) -> GRPOTrainer:
    """A trainer of one kind, wired to the clock."""
    on_gpu = torch.cuda.is_available()
    settings: dict[str, Any] = {
        "output_dir": folder, "per_device_train_batch_size": size.rows, "steps_per_generation": UPDATES,
        "num_generations": GROUP, "max_steps": UPDATES * (1 + rollouts), "max_completion_length": size.new_tokens,
        "learning_rate": 1e-6, "bf16": on_gpu, "use_cpu": not on_gpu, "gradient_checkpointing": False, "report_to": [],
        "logging_steps": UPDATES, "save_strategy": "no", "disable_tqdm": True, "shuffle_dataset": False,
    }  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = lora if kind in ("grpo_lora", "lora") else None
    common = {"processing_class": countdown_tokenizer(), "peft_config": peft, "callbacks": [clock]}
    model = save_model(size, folder)
    trainer: GRPOTrainer
    if kind.startswith("grpo"):
        trainer = GRPOTrainer(model, token_reward, GRPOConfig(**settings, beta=KL), prompts(), **common)
    else:
        args = RLSPConfig(**settings, kl_coef=KL, critic=kind, critic_warmup_rollouts=0)
        trainer = RLSPTrainer(model, token_reward, None, args, prompts(), **common)
    watch(trainer, size, clock)
    return trainer


def watch(trainer: GRPOTrainer, size: Size, clock: Clock) -> None:
    """Force the lengths, and count what is spent where."""
    base: PreTrainedModel = trainer.model.get_base_model() if hasattr(trainer.model, "peft_config") else trainer.model
    generate, calls = trainer.model.generate, iter(range(1_000_000))

    def forced(*args: Any, **kwargs: Any) -> Any:
        rows = kwargs["input_ids"].size(0)
        lengths = response_lengths(size, rows, next(calls))
        clock.tokens += sum(lengths)
        return generate(*args, logits_processor=[ForcedLengths(lengths)], **kwargs)

    trainer.model.generate = forced
    clock.timed(trainer.model, "generate", "generation")
    clock.timed(trainer, "_generate_and_score_completions", "rollout")
    clock.counted(base.model, "policy")
    if trainer.ref_model is not None:
        clock.counted(trainer.accelerator.unwrap_model(trainer.ref_model).model, "reference")
    critic = getattr(base, "critic", None)
    if hasattr(critic, "backbone"):
        clock.counted(critic.backbone, "critic")


def measure(kind: str, size: Size, rollouts: int) -> dict[str, Any]:
    """Train in this process; return seconds by phase, sampled tokens, trunk positions and peak memory."""
    resting, clock = resident_bytes(), Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(kind, size, rollouts, folder, clock)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    seconds = dict(clock.seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resting
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "kind": kind,
        "tokens": clock.tokens,
        "microseconds_per_token": {
            "total": 1e6 * seconds["total"] / clock.tokens,
            "generation": 1e6 * seconds["generation"] / clock.tokens,
            "scoring": 1e6 * (seconds["rollout"] - seconds["generation"]) / clock.tokens,
            "update": 1e6 * (seconds["total"] - seconds["rollout"]) / clock.tokens,
            "processor": 1e6 * seconds["processor"] / clock.tokens,
        },
        "trunk_positions_per_token": {name: count / clock.tokens for name, count in sorted(clock.positions.items())},
        "peak_bytes": peak,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "finite": all(math.isfinite(loss) for loss in losses) and bool(losses),
    }


def resident_bytes() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def in_a_process(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """The same, in a fresh process."""
    command = [sys.executable, __file__, "--size", options.size, "--rollouts", str(options.rollouts), "--only", kind]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def compare(turns: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Ratios to GRPO of the same turn, by kind of critic: median and range over the turns."""
    compared = {}
    for kind, baseline in BASELINES.items():
        phases = turns[0][kind]["microseconds_per_token"]
        ratios = {
            phase: [
                t[kind]["microseconds_per_token"][phase] / t[baseline]["microseconds_per_token"][phase] for t in turns
            ]
            for phase in phases
        } | {"peak_memory": [t[kind]["peak_bytes"] / t[baseline]["peak_bytes"] for t in turns]}
        compared[kind] = {
            "against": baseline,
            "target_total": TARGETS[kind],
            **{name: {"median": statistics.median(r), "range": [min(r), max(r)]} for name, r in ratios.items()},
        }
    return compared


def main() -> None:
    """Measure every kind in turn, write the JSON, print a short table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="4m")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--rollouts", type=int, default=3, help="timed ones; one more warms up")
    parser.add_argument("--threads", type=int, default=max(1, len(os.sched_getaffinity(0))))
    parser.add_argument("--only", choices=KINDS, help="one kind in this process, as a line of JSON")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/rlsp_vs_grpo[_SIZE].json")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, SIZES[options.size], options.rollouts)))
        return
    begun, turns = time.perf_counter(), []
    for turn in range(options.repetitions):
        turns.append({kind: in_a_process(kind, options) for kind in KINDS})
        print(f"turn {turn + 1} of {options.repetitions}: {time.perf_counter() - begun:.0f} s", flush=True)
    compared = compare(turns)
    record = {
        "command": "python benchmarks/rlsp_vs_grpo.py " + " ".join(sys.argv[1:]),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "versions": collect_versions(),
        "options": {key: str(value) for key, value in vars(options).items() if key not in ("out", "only")},
        "seconds": round(time.perf_counter() - begun),
        "ratio_to_grpo": compared,
        "turns": turns,
    }
    name = "rlsp_vs_grpo.json" if options.size == "4m" else f"rlsp_vs_grpo_{options.size}.json"
    out = options.out or RESULTS / name
    out.write_text(json.dumps(record, indent=1) + "\n")
    print("critic     against    time (target)            processor generation   scoring    update    memory")
    for kind, row in compared.items():
        low, high = row["total"]["range"]
        total = f"{row['total']['median']:.2f} [{low:.2f}, {high:.2f}] ({row['target_total']})"
        columns = ("processor", "generation", "scoring", "update", "peak_memory")
        rest = " ".join(f"{row[name]['median']:9.2f}" for name in columns)
        print(f"{kind:10} {row['against']:10} {total:24} {rest}")
    print(f"written: {out}")


if __name__ == "__main__":
    main()
