import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

EOS = 2


@pytest.fixture
def tiny_model():
    """Return a maker of Llamas with 32 tokens, of which 2 ends a response about every tenth token."""

    def make(seed=0, dtype=torch.float64, **shape):
        sizes = {
            "vocab_size": 32,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "initializer_range": 0.4,  # so that the next token depends visibly on the ones before
            "eos_token_id": EOS,
            "pad_token_id": 0,
        }
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**sizes | shape)).to(dtype)

    return make


@pytest.fixture
def prompts():
    """Return 24 prompts of 1 to 9 tokens, two of them equal."""
    generator = torch.Generator().manual_seed(7)
    made = [torch.randint(3, 32, (1 + i % 9,), generator=generator).tolist() for i in range(24)]
    made[20] = list(made[4])
    return made
