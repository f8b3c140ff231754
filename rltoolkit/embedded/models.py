"""The embedded tokenizer and model: Llama-style, 0.2 million parameters, made here and nowhere downloaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
# Longer pieces first: a check mark and the opening of the box are one token each, all else is single characters.
PIECES = ("\\boxed{", " ok\n", " no\n", "\n", *"0123456789+-*/()=,>?}")


def countdown_tokenizer() -> "PreTrainedTokenizerFast":
    """A tokenizer over the characters of Countdown; encoding and decoding are exact inverses."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate((PAD, BOS, EOS, "<unk>", *PIECES))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\\boxed\{| ok\n| no\n|\n|."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token="<unk>",
        model_max_length=256,
    )


def countdown_model(seed: int, tokenizer: "PreTrainedTokenizerFast", **shape: Any) -> "LlamaForCausalLM":
    """A freshly initialised Llama of about 0.2 million parameters; `shape` overrides fields of its config."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **(sizes | shape),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_countdown_model(folder: Path, seed: int, **shape: Any) -> None:
    """Write a fresh model and its tokenizer into `folder`, ready for `from_pretrained`."""
    tokenizer = countdown_tokenizer()
    countdown_model(seed, tokenizer, **shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
