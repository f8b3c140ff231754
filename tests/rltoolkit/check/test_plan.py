"""What the plan says of memory that is not the trainer's."""

import pytest

from rltoolkit.check.plan import beside_the_trainer
from rltoolkit.recipe.schema import RolloutSection


@pytest.mark.parametrize(
    ("rollout", "device", "says"),
    [
        ({}, "cuda", []),
        ({"backend": "trl-vllm"}, "cuda", ["train.vllm_gpu_memory_utilization of each GPU"]),
        ({"backend": "vllm"}, "cpu", ["its own copy of the weights and 1 GiB"]),
        ({"backend": "vllm", "engine": {"cpu_cache_gib": 4}}, "cpu", ["and 4 GiB"]),
        ({"backend": "vllm"}, "cuda", ["takes 30% of each GPU beside this, given back while training"]),
        (
            {"backend": "vllm", "engine": {"gpu_memory_utilization": 0.5, "sleep": False}},
            "cuda",
            ["takes 50% of each GPU beside this"],
        ),
        ({"backend": "vllm-server"}, "cuda", ["servers on this machine"]),
    ],
)
def test_what_a_backend_takes_beside_the_trainer(rollout: dict, device: str, says: list[str]) -> None:
    lines = beside_the_trainer(RolloutSection.model_validate(rollout), device)
    assert len(lines) == len(says)
    for line, text in zip(lines, says, strict=True):
        assert text in line
        assert line.endswith("while training") == text.endswith("while training")
