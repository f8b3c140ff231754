import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM
from transformers.cache_utils import DynamicLayer

from rltoolkit.rollout import kv_cache
from rltoolkit.rollout.kv_cache import InPlaceLayer, make_cache


def _states(rows, tokens, generator):
    shape = (rows, 2, tokens, 4)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("seed", range(20))
def test_it_holds_what_the_growing_layer_of_transformers_holds(seed, monkeypatch):
    monkeypatch.setattr(kv_cache, "FIRST_TOKENS", 3)  # so that it has to grow several times
    generator = torch.Generator().manual_seed(seed)
    ours, theirs, rows = InPlaceLayer(64), DynamicLayer(), 3
    for step in range(20):
        states = _states(rows, 5 if step == 0 else 1, generator)
        for mine, plain in zip(ours.update(*states), theirs.update(*states), strict=True):
            assert torch.equal(mine, plain)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)
        if step == 0:
            order = torch.arange(3).repeat_interleave(4)
        else:
            kept = int(torch.randint(max(1, rows - 2), rows + 1, (), generator=generator))
            order = torch.randperm(rows, generator=generator)[:kept]
        rows = len(order)
        for layer in (ours, theirs):
            layer.batch_select_indices(order)
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)


def test_memory_is_taken_once_and_never_beyond_the_most_tokens():
    layer = InPlaceLayer(20)
    generator = torch.Generator().manual_seed(0)
    layer.update(*_states(2, 10, generator))
    place = layer.keys.data_ptr()
    for _ in range(10):
        layer.update(*_states(2, 1, generator))
    assert layer.keys.data_ptr() == place
    assert layer.keys.untyped_storage().nbytes() == 2 * 2 * 20 * 4 * 4


def test_layers_with_a_window_stay_those_of_transformers(tiny_model):
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    windowed = MistralForCausalLM(MistralConfig(**sizes, num_key_value_heads=1, num_hidden_layers=2, sliding_window=4))
    assert not any(isinstance(layer, InPlaceLayer) for layer in make_cache(windowed, 9).layers)
    assert [type(layer) for layer in make_cache(tiny_model(), 9).layers] == [InPlaceLayer] * 2
