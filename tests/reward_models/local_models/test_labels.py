"""Labels are read as the tokens that really follow the question."""

import pytest
from tiny_models import tiny_causal_lm, tiny_tokenizer
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from reward_models.errors import VerifierError
from reward_models.local_models.encoding import TextEncoder
from reward_models.local_models.labels import LabelReader, label_ids

PIECES = ("<unk>", "<s>", "</s>", "▁", "▁Yes", "Yes", "▁No", "No", "▁x", "▁right?", "\n", "▁[INST]", "▁[/INST]")
# As Llama 2: the opened answer ends without a space, the finished one has it before the text.
LLAMA_2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] }}</s>{% endif %}{% endfor %}"
)


def metaspace_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Write a space as a letter, and one in front of every text, as the tokenizers of Llama 2 and Mistral do."""
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(PIECES)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split(Regex(r"\n"), "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=chat_template
    )


def read_labels(tokenizer: PreTrainedTokenizerFast, question: str) -> list[str]:
    reader = LabelReader(tiny_causal_lm(), tokenizer, ("Yes", "No"), question, {"text"})
    return list(tokenizer.convert_ids_to_tokens(list(reader.label_ids)))


def test_a_label_after_a_line_break_has_no_space_in_front() -> None:
    tokenizer = metaspace_tokenizer()
    assert tokenizer.tokenize("Yes") == ["▁Yes"]  # alone it has one, and that is not what the model answers
    assert read_labels(tokenizer, "{text} right?\n") == ["Yes", "No"]


def test_a_label_has_the_space_that_the_chat_template_writes_before_an_answer() -> None:
    assert read_labels(metaspace_tokenizer(LLAMA_2), "{text} right?\n") == ["▁Yes", "▁No"]


def test_a_label_with_a_space_of_its_own_is_taken_as_it_is() -> None:
    encoder = TextEncoder(metaspace_tokenizer())
    ids = label_ids(encoder, (" Yes", " No"), "x right?")
    assert encoder.tokenizer.convert_ids_to_tokens(list(ids)) == ["▁Yes", "▁No"]


def test_a_label_that_merges_with_the_question_is_refused() -> None:
    """The question leaves a space behind, which is half of the answer's token."""
    with pytest.raises(VerifierError, match="'Yes' is merged with the end of the text before"):
        label_ids(TextEncoder(metaspace_tokenizer()), ("Yes", "No"), "x right? ")


def test_a_label_may_be_a_special_token_of_the_model() -> None:
    encoder = TextEncoder(tiny_tokenizer())
    assert label_ids(encoder, ("<pad>", "No"), "right?") == (0, encoder.tokenizer.convert_tokens_to_ids("No"))
