"""A tokenizer over characters and Llama models of a few thousand weights, made here."""

from __future__ import annotations

import string
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system messages here') }}{% endif %}"
    "[{{ message['role'] }}] {{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # ten times the usual: an untrained model then depends on all of its text
}


def tiny_tokenizer(*, chat: bool = False, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """Printable characters, and Yes and No as one token each; a start token is added to plain texts."""
    pieces = ("<pad>", "<s>", "</s>", "<unk>", "Yes", "No", *string.printable)
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"Yes|No|[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE if chat else None,
        padding_side=padding_side,
    )


def _config(**options: Any) -> LlamaConfig:
    return LlamaConfig(vocab_size=len(tiny_tokenizer()), pad_token_id=0, bos_token_id=1, eos_token_id=2, **options)


def tiny_reward_model(seed: int = 0, **shape: Any) -> LlamaForSequenceClassification:
    """A random reward model."""
    torch.manual_seed(seed)
    return LlamaForSequenceClassification(_config(**({**SHAPE, "num_labels": 1} | shape)))


def tiny_causal_lm(seed: int = 0, **shape: Any) -> LlamaForCausalLM:
    """A random language model."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(_config(**(SHAPE | {"tie_word_embeddings": False} | shape)))
