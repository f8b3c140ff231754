import pytest
import torch
from safetensors.torch import load_file, save_file

from rltoolkit.data.tokenizer import load_tokenizer
from rltoolkit.embedded.models import save_countdown_model
from rltoolkit.errors import ModelError
from rltoolkit.rollout.load import load_transformers_backend
from rltoolkit.types import SamplingParams


@pytest.fixture
def folder(tmp_path):
    save_countdown_model(tmp_path / "model", 0)
    return tmp_path / "model"


def test_a_saved_model_samples(folder):
    tokenizer = load_tokenizer(folder)
    with load_transformers_backend(folder, tokenizer, device="cpu") as backend:
        prompt = tokenizer("1,2,3>6\n")["input_ids"]
        sample = backend.generate([prompt], 1, SamplingParams(max_new_tokens=300 - 60), [0])[0][0]
    assert 0 < len(sample.token_ids) <= 240
    assert backend.model.dtype == torch.float32
    assert load_transformers_backend(folder, tokenizer, dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_model_that_cannot_serve_is_refused(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    with pytest.raises(ModelError, match=r"cannot take weights from .*nowhere: .*give a model folder"):
        load_transformers_backend(tmp_path / "nowhere", tokenizer)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, for instance lm_head\.weight"):
        load_transformers_backend(folder, tokenizer)
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match=r"cannot take weights from .*model"):
        load_transformers_backend(folder, tokenizer)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused(folder):
    with pytest.raises(ModelError, match="no GPU is visible"):
        load_transformers_backend(folder, load_tokenizer(folder), device="cuda:0")
