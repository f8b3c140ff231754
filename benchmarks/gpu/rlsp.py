"""RLSP against TRL's GRPO on one GPU: benchmarks/rlsp_vs_grpo.py with a random Qwen2 of 0.5B parameters or more.

    python benchmarks/gpu/rlsp.py                              # 0.5B under bfloat16 autocast
    python benchmarks/gpu/rlsp.py --size 1.5b --repetitions 3

Writes benchmarks/results/rlsp_vs_grpo_SIZE.json after every turn; all options are those of that script. Rows and
lengths are chosen so that GRPO fits 140 GB without gradient checkpointing; a turn takes some six minutes (estimates).
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[1:1] = ["--size", "0.5b"]  # a later --size counts
    runpy.run_path(str(Path(__file__).parents[1] / "rlsp_vs_grpo.py"), run_name="__main__")
