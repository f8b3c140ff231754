"""RLSP against TRL's GRPO: wall time per sampled token and peak memory, by kind of critic.

Both trainers get the same random Qwen2, the same prompts in the same order, batch, precision and number of updates, and
responses of the same lengths: a logits processor forces the end token where a seeded lognormal draw says (10 times
between the 5th and the 95th percentile); responses of other lengths, or numbers that are not finite, end the benchmark.
GRPO's beta is RLSP's KL coefficient, so that both ask the reference. The LoRA critic is compared with GRPO training the
same LoRA. A model with random weights costs what a trained one costs; nothing is said about learning.

GRPO is taken as it is configured: it reads the rows of an update at once, padded to the longest prompt and the longest
response, and keeps the activations of all. RLSP divides the rows of an update by its budget of tokens, half of it where
the critic has a pass of its own. That is part of what is compared, in time and above all in memory; who runs GRPO with
fewer rows per pass and more accumulation gets part of it there, too.

Every measurement is a process of its own. It trains the tiny model first, so that the peak above the memory at rest
does not count libraries; on a CPU the peak is resident memory, and includes what the allocator keeps. One rollout of
the measured model warms up. Each turn measures every kind, beginning with the next one; a ratio is within a turn.
Seconds of processor time stand beside those of the clock: on a busy machine they are the better witness. Time is that
of generation, of the update (both passes and the optimiser's step), and of the rest of the rollout: log-probs of policy
and reference, values, rewards. The three sum up to the total.

A measurement times one rollout and its four updates (32 responses at 4m, 2,219 tokens): so the five turns of the
default, 25 processes, stay below 14 minutes on two quiet cores. Raise --rollouts for less noise in each.
Rows and lengths of 0.5b and 1.5b let GRPO fit one GPU of 140 GB by estimate (about 45 and 65 GB), and a turn take some
six minutes. The JSON is written after every turn: what is interrupted keeps its whole turns, and their number.

    python benchmarks/rlsp_vs_grpo.py                      # 4M parameters, float32, CPU
    python benchmarks/rlsp_vs_grpo.py --size 0.5b          # under bfloat16 autocast, on CUDA
    python benchmarks/rlsp_vs_grpo.py --size tiny --repetitions 1 --out /dev/null   # a smoke test
"""

import argparse
import gc
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
    on_gpu: bool = False


def _qwen2(vocabulary: int, hidden: int, inner: int, layers: int, heads: int, groups: int) -> dict[str, int]:
    return {
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": groups,
    }  # fmt: skip


SIZES = {
    "tiny": Size(_qwen2(64, 32, 64, 2, 2, 2), rows=4, new_tokens=32, median=8),
    "4m": Size(_qwen2(2048, 192, 768, 6, 4, 2), rows=8, new_tokens=256, median=64),
    "0.5b": Size(_qwen2(151_936, 896, 4864, 24, 14, 2), rows=16, new_tokens=1024, median=256, on_gpu=True),
    "1.5b": Size(_qwen2(151_936, 1536, 8960, 28, 12, 2), rows=8, new_tokens=1024, median=256, on_gpu=True),
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


def sampled_tokens(completion_mask: Tensor, forced: list[int]) -> int:
    """Tokens of the responses that came back, (B, C); it is an error if their lengths are not the forced ones."""
    found = completion_mask.sum(1).tolist()
    if found != forced:
        raise RuntimeError(
            f"the responses of a rollout have the lengths {found}, forced were {forced}: times per token of such "
            "responses cannot be compared. See that END is the end token and that no other processor follows."
        )
    return sum(found)


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds and backbone positions by phase, from the end of the first rollout on."""

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
        "logging_nan_inf_filter": False,  # or a loss that is not a number is not seen
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
    generate, calls, lengths = trainer.model.generate, iter(range(1_000_000)), list[int]()

    def forced(*args: Any, **kwargs: Any) -> Any:
        asked = response_lengths(size, kwargs["input_ids"].size(0), next(calls))
        lengths.extend(asked)
        return generate(*args, logits_processor=[ForcedLengths(asked)], **kwargs)

    trainer.model.generate = forced
    clock.timed(trainer.model, "generate", "generation")
    clock.timed(trainer, "_generate_and_score_completions", "rollout")
    roll_out: Callable[[Any], dict[str, Any]] = trainer._generate_and_score_completions

    def checked(inputs: Any) -> dict[str, Any]:
        lengths.clear()
        rollout = roll_out(inputs)
        clock.tokens += sampled_tokens(rollout["completion_mask"], lengths)
        return rollout

    trainer._generate_and_score_completions = checked
    clock.counted(base.model, "policy")
    if trainer.ref_model is not None:
        clock.counted(trainer.accelerator.unwrap_model(trainer.ref_model).model, "reference")
    critic = getattr(base, "critic", None)
    if hasattr(critic, "backbone"):
        clock.counted(critic.backbone, "critic")


def measure(kind: str, size: Size, rollouts: int) -> dict[str, Any]:
    """Train in this process; return seconds by phase, sampled tokens, backbone positions and peak memory."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        make_trainer(kind, SIZES["tiny"], 0, folder, Clock()).train()  # what libraries load and keep is there now
        gc.collect()
        resting = memory_at_rest()
        trainer = make_trainer(kind, size, rollouts, folder, clock)
        trainer.train()
        peak = peak_memory() - resting
    if problem := what_is_not_finite(trainer):
        raise SystemExit(f"{kind}: {problem}; its times are not those of a training that works")
    seconds, tokens = clock.seconds, clock.tokens
    return {
        "tokens": tokens,
        "microseconds_per_token": {
            "total": 1e6 * seconds["total"] / tokens,
            "generation": 1e6 * seconds["generation"] / tokens,
            "update": 1e6 * (seconds["total"] - seconds["rollout"]) / tokens,
            "rest": 1e6 * (seconds["rollout"] - seconds["generation"]) / tokens,
            "processor": 1e6 * seconds["processor"] / tokens,
        },
        "backbone_positions_per_token": {name: count / tokens for name, count in sorted(clock.positions.items())},
        "peak_bytes": peak,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
    }


def what_is_not_finite(trainer: GRPOTrainer) -> str | None:
    """None where losses and gradient norms were logged, and they and all weights are finite; else what is not."""
    for name in ("loss", "grad_norm"):
        logged = [float(entry[name]) for entry in trainer.state.log_history if name in entry]
        if not logged:
            return f"no {name} was logged"
        if not all(map(math.isfinite, logged)):
            return f"the logged {name} is not finite: {logged}"
    wrong = [name for name, weights in trainer.model.named_parameters() if not weights.isfinite().all()]
    return f"weights are not finite: {', '.join(wrong[:3])}" if wrong else None


def memory_at_rest() -> int:
    """Bytes that this process holds now, on the GPU where there is one; the peak counts from here on."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return _kilobytes("self/status", "VmRSS") * 1024


def peak_memory() -> int:
    """The most bytes held since `memory_at_rest`."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _kilobytes("self/status", "VmHWM") * 1024


def _kilobytes(file: str, field: str) -> int:
    return int(of_proc(file, field).split()[0])


def of_proc(file: str, field: str) -> str:
    """The first value of a field in a file of /proc."""
    for line in Path("/proc", file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    raise OSError(f"/proc/{file} has no {field}; this benchmark needs Linux on a machine that names it")


def in_a_process(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """The same, in a fresh process."""
    command = [sys.executable, __file__, "--size", options.size, "--rollouts", str(options.rollouts), "--only", kind]
    waiting = {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that spin would count as work, and stand still on busy cores
    environment = waiting | os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the measurement of {kind} ended with status {done.returncode}; see above")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def order_of(turn: int) -> list[str]:
    """The kinds, beginning with another one in every turn: none is always measured on the machine's best moment."""
    first = turn % len(KINDS)
    return [*KINDS[first:], *KINDS[:first]]


def summary(values: list[float]) -> dict[str, Any]:
    """Median, range, and all values in the order of the turns."""
    return {"median": statistics.median(values), "range": [min(values), max(values)], "values": values}


def by_kind(turns: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """What every kind took, over the turns."""
    kinds = {}
    for kind in KINDS:
        figures = [turn[kind] for turn in turns]
        grouped = {
            group: {name: summary([f[group][name] for f in figures]) for name in figures[0][group]}
            for group in ("microseconds_per_token", "backbone_positions_per_token")
        }
        peaks = summary([f["peak_bytes"] for f in figures])
        sizes = {name: figures[0][name] for name in ("parameters", "tokens")}
        kinds[kind] = {**sizes, **grouped, "peak_bytes": peaks}
    return kinds


def compare(turns: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Ratios to GRPO of the same turn, by kind of critic."""
    compared = {}
    for kind, baseline in BASELINES.items():
        ratios = {
            phase: [
                t[kind]["microseconds_per_token"][phase] / t[baseline]["microseconds_per_token"][phase] for t in turns
            ]
            for phase in turns[0][kind]["microseconds_per_token"]
        } | {"peak_memory": [t[kind]["peak_bytes"] / t[baseline]["peak_bytes"] for t in turns]}
        compared[kind] = {
            "against": baseline,
            "target_total": TARGETS[kind],
            **{name: summary(values) for name, values in ratios.items()},
        }
    return compared


def report(
    options: argparse.Namespace, turns: list[dict[str, dict[str, Any]]], loads: list[float], seconds: float
) -> dict[str, Any]:
    """What the JSON holds after these turns, whose dicts are in the order of measurement."""
    given = {name: getattr(options, name) for name in ("size", "repetitions", "rollouts", "threads")}
    return {
        "what": "wall time per sampled token (total = generation + update + rest), processor time, positions that "
        "backbones read, peak memory; each measurement in a process of its own",
        "command": " ".join(["python benchmarks/rlsp_vs_grpo.py", *(f"--{k} {v}" for k, v in given.items())]),
        "repetitions": {"asked": options.repetitions, "measured": len(turns)},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processor": of_proc("cpuinfo", "model name"),
        "versions": collect_versions(),
        "size": asdict(SIZES[options.size]),
        "seconds": round(seconds),
        "turns": [{"order": list(turn), "load_before": load} for turn, load in zip(turns, loads, strict=True)],
        "ratio_to_grpo": compare(turns),
        "kinds": by_kind(turns),
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options, completed by what the size and the machine say; a size that needs a GPU is refused without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="4m")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--rollouts", type=int, default=1, help="timed ones; one more warms up")
    parser.add_argument("--threads", type=int, default=max(1, len(os.sched_getaffinity(0))))
    parser.add_argument("--only", choices=KINDS, help="one kind in this process, as a line of JSON")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/rlsp_vs_grpo[_SIZE].json")
    options = parser.parse_args(arguments)
    on_gpu = torch.cuda.is_available()
    if SIZES[options.size].on_gpu and not on_gpu:
        parser.error(f"--size {options.size} needs a GPU, and torch {torch.__version__} sees none; take 4m")
    if min(options.rollouts, options.repetitions) < 1:
        parser.error(f"--rollouts {options.rollouts} --repetitions {options.repetitions}: both must be at least 1")
    name = "rlsp_vs_grpo.json" if options.size == "4m" and not on_gpu else f"rlsp_vs_grpo_{options.size}.json"
    options.out = options.out or RESULTS / name
    return options


def print_table(compared: dict[str, Any]) -> None:
    """The ratios in short."""
    print("critic     against    time (target)            processor generation    update      rest    memory")
    for kind, row in compared.items():
        low, high = row["total"]["range"]
        total = f"{row['total']['median']:.2f} [{low:.2f}, {high:.2f}] ({row['target_total']})"
        columns = ("processor", "generation", "update", "rest", "peak_memory")
        rest = " ".join(f"{row[name]['median']:9.2f}" for name in columns)
        print(f"{kind:10} {row['against']:10} {total:24} {rest}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every kind in turn, write the JSON after each turn, print a short table."""
    options = parse(arguments)
    if options.only:
        print(json.dumps(measure(options.only, SIZES[options.size], options.rollouts)))
        return
    begun, turns, loads = time.perf_counter(), list[dict[str, dict[str, Any]]](), list[float]()
    for turn in range(options.repetitions):
        loads.append(os.getloadavg()[0])
        turns.append({kind: in_a_process(kind, options) for kind in order_of(turn)})
        seconds = time.perf_counter() - begun
        record = report(options, turns, loads, seconds)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(f"turn {turn + 1} of {options.repetitions}: {seconds:.0f} s, written to {options.out}", flush=True)
    print_table(record["ratio_to_grpo"])


if __name__ == "__main__":
    main()
