"""Tokenizers made on the spot: of characters, of merged pieces, with and without a chat template."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def wrapped(tokenizer: Tokenizer, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = chat_template
    return fast


@pytest.fixture
def characters() -> PreTrainedTokenizerFast:
    """One token per byte, `<s>` in front, no chat template."""
    alphabet = ["<pad>", "<s>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return wrapped(tokenizer)


@pytest.fixture
def chatty(characters: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same with a chat template."""
    characters.chat_template = CHAT_TEMPLATE
    return characters


@pytest.fixture
def merging() -> PreTrainedTokenizerFast:
    """Byte pairs that merge across a border: "ab" is one token, "a" and "b" are two."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(vocab_size=40, special_tokens=["<pad>", "<s>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["ab ab ab ab cd cd cd : x y z"], trainer)
    return wrapped(tokenizer)


@pytest.fixture
def spaced() -> PreTrainedTokenizerFast:
    """Like SentencePiece: a text encoded alone begins with a space that is not there."""
    alphabet = ["<pad>", "<s>", "</s>", "<unk>", "▁", *"abcxyz:"]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return wrapped(tokenizer)
