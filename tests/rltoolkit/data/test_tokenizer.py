"""A tokenizer that cannot serve is refused before any weight is loaded."""

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig, PreTrainedTokenizerFast

from rltoolkit.data.tokenizer import load_tokenizer
from rltoolkit.errors import ModelError


def test_a_folder_with_a_tokenizer(tmp_path: Path, characters: PreTrainedTokenizerFast) -> None:
    characters.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded("abc")["input_ids"] == characters("abc")["input_ids"]
    assert (loaded.eos_token, loaded.pad_token) == ("</s>", "<pad>")


def test_a_missing_padding_token_becomes_the_end_token(tmp_path: Path, characters: PreTrainedTokenizerFast) -> None:
    characters.pad_token = None
    characters.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token == "</s>"


def test_a_model_folder_without_a_tokenizer(tmp_path: Path, characters: PreTrainedTokenizerFast) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    characters.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer \(none of tokenizer\.json.*copy the tokenizer"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end(tmp_path: Path, characters: PreTrainedTokenizerFast) -> None:
    characters.save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    settings.pop("eos_token")
    config.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        load_tokenizer(tmp_path)


def test_a_torn_tokenizer(tmp_path: Path, characters: PreTrainedTokenizerFast) -> None:
    characters.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(tmp_path)


def test_names_that_lead_nowhere() -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_tokenizer("./no/such/folder")
    with pytest.raises(ModelError, match="embedded:chess is not known"):
        load_tokenizer("embedded:chess")


def test_a_hub_name_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"tokenizer of nobody/nothing cannot be loaded.*check the name"):
        load_tokenizer("nobody/nothing")


def test_the_embedded_tokenizer() -> None:
    tokenizer = load_tokenizer("embedded:countdown")
    assert tokenizer.decode(tokenizer("3,5,2>16\n")["input_ids"]) == "3,5,2>16\n"
