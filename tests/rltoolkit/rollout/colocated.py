"""Run by test_vllm_backend.py in two processes: a backend beside accelerate's process group."""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.vllm_backend import VLLMBackend
from rltoolkit.types import SamplingParams

ALLOWED = {
    "VLLM_DISABLE_SHARED_EXPERTS_STREAM",  # read when it samples
    "VLLM_SSM_CONV_STATE_LAYOUT",
    "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR",  # torch's own: set whenever it loads what it compiled
}
"""What may be left in the environment."""


def _changed(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


def main(folder: Path) -> None:
    state = PartialState(cpu=True)
    before = dict(os.environ)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(state.process_index)
    expected = torch.rand(3)
    torch.manual_seed(state.process_index)
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    shape = {"tie_word_embeddings": False, "max_position_embeddings": 1024, "initializer_range": 0.3}
    with VLLMBackend(folder / "model", eos_token_ids=[2], engine=EngineOptions(enforce_eager=True)) as backend:
        started = dict(os.environ)
        kept = torch.equal(torch.rand(3), expected)
        model = countdown_model(state.process_index, countdown_tokenizer(), **shape)  # another policy on each process
        backend.sync(model, 1)
        sample = backend.generate([[5, 6]], 1, SamplingParams(max_new_tokens=8), [state.process_index])[0][0]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, *sample.token_ids]])).logits[0, 1:-1].log_softmax(-1)
    expected_logprobs = logits.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
    total = torch.ones(1)
    torch.distributed.all_reduce(total)  # the group still works
    result = {
        "gap": bool((expected_logprobs - torch.tensor(sample.logprobs)).abs().max() < 1e-3),
        "group": total.item() == 2,
        "random": kept,
        "threads": torch.get_num_threads() == threads and torch.set_num_threads is set_threads,
        "variables": sorted({*_changed(before, started), *_changed(before, dict(os.environ))} - ALLOWED),
        "precision": torch.get_float32_matmul_precision() == "high",
    }
    (folder / f"{state.process_index}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
