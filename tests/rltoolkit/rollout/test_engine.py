"""The settings of an engine, and that a recipe can give all of them."""

from dataclasses import fields

import pytest

from rltoolkit.errors import RolloutError
from rltoolkit.recipe.schema import EngineSection, ServersSection
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.servers.backend import ServerOptions


@pytest.mark.parametrize(
    ("rank", "most"), [(None, None), (1, 1), (2, 8), (8, 8), (9, 16), (257, 320), (512, 512), (513, None)]
)
def test_a_rank_is_rounded_up_to_one_that_vllm_takes(rank: int | None, most: int | None) -> None:
    assert EngineOptions(lora_rank=rank).max_lora_rank == most


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tensor_parallel", 0),
        ("cpu_cache_gib", 0),
        ("max_model_len", 0),
        ("lora_rank", 0),
        ("gpu_memory_utilization", 0.0),
        ("gpu_memory_utilization", 1.1),
        ("gpu_memory_utilization", float("nan")),
    ],
)
def test_what_no_engine_can_have(option: str, value: float) -> None:
    with pytest.raises(RolloutError, match=f"engine.{option} is {value}; give"):
        EngineOptions(**{option: value})


def test_a_recipe_gives_every_option_of_an_engine() -> None:
    """But the rank of adapters, which stands in its model section, as does the dtype unless it is another one here."""
    options = {one.name: one.default for one in fields(EngineOptions)}
    assert options.pop("lora_rank") is None
    assert (options.pop("dtype"), EngineSection().dtype) == ("auto", None)
    assert options == EngineSection().model_dump(exclude={"dtype"})


def test_a_recipe_gives_every_option_of_a_pool_of_servers() -> None:
    section = ServersSection().model_dump()
    for one in fields(ServerOptions):
        assert section[one.name] == (() if one.name == "urls" else one.default)
