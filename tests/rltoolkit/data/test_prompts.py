"""Prompts are what the recipe asks for, and every row that cannot be one is named."""

import logging
from dataclasses import dataclass

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from rltoolkit.data.prompts import build_prompts, duplicates_note, prompt_token_ids
from rltoolkit.errors import DataError, ModelError
from rltoolkit.recipe.schema import RlDataSource


@dataclass(frozen=True)
class Reference:
    column: str
    pattern: str | None = None


@dataclass(frozen=True)
class Spec:
    prompt: str | None = "Q: {question}"
    reference: Reference | None = Reference("answer")
    format: str = "text"
    system: str | None = None


ROWS = Dataset.from_list(
    [
        {"question": "{x} or {0}?", "answer": "first\n#### 1\n#### 72 ", "level": 3},
        {"question": "b", "answer": "#### 1,000", "level": 4},
    ]
)


def test_text_prompts_with_references(characters: PreTrainedTokenizerFast) -> None:
    built = build_prompts(ROWS, Spec(reference=Reference("answer", r"#### (.+)")), characters, 50, keep=["level"])

    assert built.to_list() == [
        {"prompt": "Q: {x} or {0}?", "answer": "72", "row_id": 0, "level": 3},
        {"prompt": "Q: b", "answer": "1,000", "row_id": 1, "level": 4},
    ]


def test_chat_prompts_are_messages(chatty: PreTrainedTokenizerFast) -> None:
    plain = build_prompts(ROWS, Spec(format="chat"), chatty, 99)
    guided = build_prompts(ROWS, Spec(format="chat", system="Be brief."), chatty, 99)

    assert plain[1]["prompt"] == [{"role": "user", "content": "Q: b"}]
    assert guided[1]["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: b"},
    ]
    ids = prompt_token_ids(guided["prompt"][:], chatty)
    assert chatty.decode(ids[1]) == "<s><system>Be brief.\n<user>Q: b\n<assistant>"
    assert chatty.decode(prompt_token_ids(["Q: b"], chatty)[0]) == "<s>Q: b"
    assert prompt_token_ids([], chatty) == []


def test_a_section_of_a_recipe_is_a_spec(characters: PreTrainedTokenizerFast) -> None:
    section = RlDataSource.model_validate(
        {"path": "a.jsonl", "prompt": "{question}", "reference": "answer", "format": "text"}
    )
    assert build_prompts(ROWS, section, characters, 50)["answer"][1] == "#### 1,000"


def test_the_embedded_columns_need_no_naming(characters: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_list([{"prompt": "3,5>8\n", "answer": "numbers=3,5;target=8"}])
    built = build_prompts(rows, Spec(prompt=None, reference=None), characters, 50)
    assert built.to_list() == [{"prompt": "3,5>8\n", "answer": "numbers=3,5;target=8", "row_id": 0}]


def test_numbers_become_text(characters: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_list([{"question": 5, "answer": 72}])
    assert build_prompts(rows, Spec(), characters, 50).to_list() == [{"prompt": "Q: 5", "answer": "72", "row_id": 0}]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec(prompt="{problem} {quesion}"), r"data\.train\.prompt names column 'problem'"),
        (Spec(prompt="{problem} {quesion}"), r"'quesion': did you mean question\?"),
        (Spec(prompt="{quesion}"), r"has the columns: question, answer, level"),
        (Spec(reference=Reference("gold")), r"data\.train\.reference names column 'gold'.*\n.*question, answer, level"),
        (Spec(system="Be brief."), r"data\.train\.system is set, but data\.train\.format is text"),
        (Spec(prompt="no column"), r"data\.train\.prompt is 'no column'"),
    ],
)
def test_a_spec_that_does_not_fit_the_data(characters: PreTrainedTokenizerFast, spec: Spec, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_prompts(ROWS, spec, characters, 50)


def test_a_column_to_keep_must_be_there(characters: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match=r"names column 'lvl': did you mean level\?"):
        build_prompts(ROWS, Spec(), characters, 50, keep=["lvl"])


@pytest.mark.parametrize("empty", [None, "", " \n", float("nan")])
@pytest.mark.parametrize("column", ["question", "answer"])
def test_empty_cells_are_counted_and_the_first_is_named(
    characters: PreTrainedTokenizerFast, column: str, empty: object
) -> None:
    filled: object = 1.5 if isinstance(empty, float) else "x"
    rows = {"question": ["q"] * 7, "answer": ["a"] * 7}
    rows[column] = [filled, empty, filled, empty, empty, empty, filled]  # type: ignore[list-item]
    fault = "is empty" if column == "question" else "has no answer"
    with pytest.raises(DataError, match=rf"'{column}' {fault} in 4 of 7 rows \(rows 2, 4, 5 and 1 more\)"):
        build_prompts(Dataset.from_dict(rows), Spec(), characters, 50)


def test_a_pattern_that_finds_nothing_is_named(characters: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_dict({"question": ["a", "b", "c"], "answer": ["#### 1", "none", "####  "]})
    with pytest.raises(DataError, match=r"finds no answer in column 'answer' in 2 of 3 rows \(rows 2, 3\)"):
        build_prompts(rows, Spec(reference=Reference("answer", r"####\s*(.*)$")), characters, 50)


def test_a_long_prompt_is_refused_and_never_cut(characters: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_dict({"question": ["ab", "abcd", "abc"], "answer": ["1"] * 3})
    spec = Spec(prompt="{question}")
    assert build_prompts(rows, spec, characters, 5)["prompt"][:] == ["ab", "abcd", "abc"]  # <s> counts
    with pytest.raises(DataError) as caught:
        build_prompts(rows, spec, characters, 3)
    message = str(caught.value)
    assert "2 of 3 prompts have more than rollout.max_prompt_tokens = 3 tokens (row 2 has 5, row 3 has 4)" in message
    assert "Set rollout.max_prompt_tokens to 5 or more" in message


def test_a_chat_counts_with_its_template(chatty: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_dict({"question": ["a"], "answer": ["1"]})
    spec = Spec(prompt="{question}", format="chat")
    exact = len("<user>a\n<assistant>") + 1
    assert build_prompts(rows, spec, chatty, exact).num_rows == 1
    with pytest.raises(DataError, match=f"row 1 has {exact}"):
        build_prompts(rows, spec, chatty, exact - 1)


def test_a_chat_without_a_template_names_the_remedy(characters: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ModelError, match=r"has no chat template; set data\.train\.format: text"):
        build_prompts(ROWS, Spec(format="chat"), characters, 50)


def test_a_template_that_refuses_the_messages(chatty: PreTrainedTokenizerFast) -> None:
    chatty.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ModelError, match=r"refuses these messages \(System role not supported\)"):
        build_prompts(ROWS, Spec(format="chat", system="x"), chatty, 50)


def test_repeated_prompts_are_logged(characters: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture) -> None:
    rows = Dataset.from_dict({"question": ["a", "b", "a", "b", "c"], "answer": ["1", "2", "1", "3", "4"]})
    with caplog.at_level(logging.WARNING):
        assert build_prompts(rows, Spec(), characters, 50).num_rows == 5
    (record,) = caplog.records
    assert record.getMessage() == (
        "data.train: 2 prompts occur more than once (first: rows 1, 3); "
        "1 of them with different answers (first: rows 2, 4)"
    )


def test_no_note_without_repeats() -> None:
    assert duplicates_note(["a", "b"], ["1", "1"]) is None
    chat = [{"role": "user", "content": "a"}]
    assert duplicates_note([chat, chat], ["1", "1"]) == "1 prompts occur more than once (first: rows 1, 2)"
