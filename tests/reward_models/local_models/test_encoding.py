"""Texts become tokens whole or not at all, in the form the model was trained on."""

import pytest
from tiny_models import tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from reward_models.errors import VerifierError
from reward_models.local_models.encoding import TextEncoder, context_limit
from reward_models.local_models.prompts import plain_opening, prompt_problem, query_name, text_problem

MESSAGES = [
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "sure?"},
]


def decoded(tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...] | None) -> str:
    assert ids is not None
    return str(tokenizer.decode(list(ids)))


def test_a_text_prompt_is_joined_with_its_response_and_closed() -> None:
    tokenizer = tiny_tokenizer(chat=True)  # texts stay plain even so, as in TRL
    encoder = TextEncoder(tokenizer)
    assert decoded(tokenizer, encoder.answered("2+2=", "4").ids) == "<s>2+2=4</s>"
    assert encoder.answered("2+2=", "4</s>") == encoder.answered("2+2=", "4")
    assert decoded(tokenizer, encoder.opened("2+2=", "4").ids) == "<s>2+2=4"
    assert encoder.opened("<s>2+2=", "4") == encoder.opened("2+2=", "4")  # rendered before: no second start token
    assert decoded(tokenizer, encoder.opened("2+2=", bos=False).ids) == "2+2="


def test_messages_go_through_the_chat_template() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    encoder = TextEncoder(tokenizer)
    turns = "<s>[user] 2+2?</s>[assistant] 4</s>[user] sure?</s>"
    assert decoded(tokenizer, encoder.answered(MESSAGES, "yes").ids) == turns + "[assistant] yes</s>"
    assert decoded(tokenizer, encoder.opened(MESSAGES, "ye").ids) == turns + "[assistant] ye"
    assert decoded(tokenizer, encoder.opened(MESSAGES, bos=False).ids) == turns.removeprefix("<s>") + "[assistant] "
    as_user = TextEncoder(tokenizer, template="chat").answered("2+2?", "4")
    assert decoded(tokenizer, as_user.ids) == "<s>[user] 2+2?</s>[assistant] 4</s>"


def test_the_chat_template_alone_writes_special_tokens() -> None:
    """Many templates have no start token; the tokenizer must then not add its own."""
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    encoded = TextEncoder(tokenizer).answered([{"role": "user", "content": "a"}], "b")
    assert decoded(tokenizer, encoded.ids) == "[user] a</s>[assistant] b</s>"


def test_messages_without_a_chat_template_are_written_with_their_roles() -> None:
    opening = "user: 2+2?\n\nassistant: 4\n\nuser: sure?\n\nassistant: "
    assert plain_opening(MESSAGES) == opening
    tokenizer = tiny_tokenizer()
    assert decoded(tokenizer, TextEncoder(tokenizer).answered(MESSAGES, "yes").ids) == f"<s>{opening}yes</s>"


def test_an_opened_message_of_the_assistant_is_continued_without_a_template_too() -> None:
    tokenizer = tiny_tokenizer()
    encoded = TextEncoder(tokenizer).opened(MESSAGES[:2], "2")
    assert decoded(tokenizer, encoded.ids) == "<s>user: 2+2?\n\nassistant: 42"


def test_a_message_that_the_template_does_not_let_continue_is_a_problem() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'][:2] }}{% endfor %}"
    encoded = TextEncoder(tokenizer).opened([{"role": "assistant", "content": "abc"}], "d")
    assert encoded.problem.startswith("the chat template refuses the messages: continue_final_message")


def test_an_end_token_that_the_tokenizer_adds_does_not_close_an_open_text() -> None:
    from tokenizers import processors

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    encoder = TextEncoder(tokenizer)
    assert decoded(tokenizer, encoder.opened("ab", "c").ids) == "<s>abc"
    assert decoded(tokenizer, encoder.opened("ab</s>").ids) == "<s>ab</s></s>"


def test_nothing_is_cut() -> None:
    encoder = TextEncoder(tiny_tokenizer(), max_length=8)
    assert len(encoder.answered("12", "3456").ids or ()) == 8
    too_long = encoder.answered("12", "34567")
    assert too_long.ids is None
    assert too_long.problem == "too long: 9 tokens, limit 8"
    huge = encoder.answered("", "a" * 10_000_000)  # refused before it is encoded
    assert huge.ids is None
    assert "characters, limit 8 tokens" in huge.problem


def test_messages_that_the_template_refuses_are_a_problem_and_no_exception() -> None:
    encoded = TextEncoder(tiny_tokenizer(chat=True)).answered([{"role": "system", "content": "x"}], "y")
    assert encoded.ids is None
    assert encoded.problem == "the chat template refuses the messages: no system messages here"


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(VerifierError, match="no chat template"):
        TextEncoder(tiny_tokenizer(), template="chat")
    with pytest.raises(VerifierError, match="expected 'auto', 'chat' or 'plain'"):
        TextEncoder(tiny_tokenizer(), template="jinja")  # type: ignore[arg-type]
    with pytest.raises(VerifierError, match="max_length is 0"):
        TextEncoder(tiny_tokenizer(), max_length=0)


def test_the_limit_is_the_smaller_of_tokenizer_and_model() -> None:
    from transformers import LlamaConfig

    tokenizer = tiny_tokenizer()
    assert context_limit(tokenizer, LlamaConfig(max_position_embeddings=512)) == 512  # tokenizer: no limit
    tokenizer.model_max_length = 100
    assert context_limit(tokenizer, LlamaConfig(max_position_embeddings=512)) == 100


def test_there_is_no_limit_where_neither_states_one() -> None:
    from transformers import BloomConfig  # positions of any number

    assert context_limit(tiny_tokenizer(), BloomConfig()) is None


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        (b"bytes", "the prompt is bytes"),
        ([], "the prompt is list"),
        (None, "the prompt is NoneType"),
        ([{"content": "no role"}], "message 0 of the prompt has no role"),
        ([{"role": "user", "content": None}], "the content of message 0 of the prompt is NoneType"),
        ([{"role": "user", "content": [{"type": "image"}]}], "the content of message 0 of the prompt is list"),
        ("\ud800", "lone surrogate at character 0"),
    ],
)
def test_unreadable_prompts_have_a_reason(prompt: object, problem: str) -> None:
    assert problem in str(prompt_problem(prompt))


def test_readable_prompts_have_none() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert prompt_problem([{"role": "user", "content": parts}]) is None
    assert plain_opening([{"role": "user", "content": parts}]) == "user: ab\n\nassistant: "
    assert prompt_problem("") is None
    assert text_problem("", "it") is None


def test_a_query_is_named_by_the_start_of_its_last_text() -> None:
    assert query_name("What is\n\n2+2?") == "What is 2+2?"
    assert query_name(MESSAGES) == "sure?"
    assert query_name("x" * 100) == "x" * 59 + "…"
    assert query_name(None) == "None"
