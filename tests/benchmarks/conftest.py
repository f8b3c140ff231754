import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"


@pytest.fixture(scope="session")
def accounting(script):
    """Return the module with the accounting of benchmarks/gpu/rollout.py."""
    return sys.modules["rollout_accounting"]


@pytest.fixture(scope="session")
def script():
    """Return benchmarks/gpu/rollout.py as a module, which finds the one beside it as a script does."""
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("gpu_rollout_benchmark", FOLDER / "rollout.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))
    del sys.modules[spec.name], sys.modules["rollout_accounting"]


@pytest.fixture
def model_of(accounting):
    """Return a function that makes the tiny model, with changes of its config."""

    def make(**changes):
        torch.manual_seed(0)
        return Qwen2ForCausalLM(Qwen2Config(eos_token_id=None, **(accounting.SIZES["tiny"].shape | changes))).eval()

    return make
