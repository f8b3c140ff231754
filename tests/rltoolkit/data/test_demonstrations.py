"""A demonstration is the prompt that sampling starts from, then the completion, then the end."""

from dataclasses import dataclass

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from rltoolkit.data.demonstrations import build_demonstrations
from rltoolkit.data.prompts import prompt_token_ids
from rltoolkit.errors import DataError, ModelError


@dataclass(frozen=True)
class Spec:
    prompt: str | None = "{q}"
    completion: str | None = "{c}"
    format: str = "text"
    system: str | None = None


def built(tokenizer: PreTrainedTokenizerFast, q: str, c: str, spec: Spec | None = None) -> tuple[list[int], list[int]]:
    (row,) = build_demonstrations(Dataset.from_list([{"q": q, "c": c}]), spec or Spec(), tokenizer, None).to_list()
    prompt = prompt_token_ids([row["prompt"]], tokenizer)[0]
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"] == [-100] * len(prompt) + row["input_ids"][len(prompt) :]
    return prompt, row["input_ids"][len(prompt) :]


def test_text(characters: PreTrainedTokenizerFast) -> None:
    prompt, completion = built(characters, "3,5>8\n", "3+5 ok")
    assert characters.decode(prompt) == "<s>3,5>8\n"
    assert characters.decode(completion) == "3+5 ok</s>"
    assert completion[-1] == characters.eos_token_id
    assert characters.bos_token_id not in completion


def test_an_end_that_is_written_already_is_not_doubled(characters: PreTrainedTokenizerFast) -> None:
    _, completion = built(characters, "a", "b</s>")
    assert completion.count(characters.eos_token_id) == 1


def test_chat(chatty: PreTrainedTokenizerFast) -> None:
    prompt, completion = built(chatty, "a", "b", Spec(format="chat", system="s"))
    assert chatty.decode(prompt) == "<s><system>s\n<user>a\n<assistant>"
    assert prompt.count(chatty.bos_token_id) == 1
    assert chatty.decode(completion) == "b</s>"


def test_tokens_that_would_merge_across_the_border_stay_apart(merging: PreTrainedTokenizerFast) -> None:
    assert len(merging("ab", add_special_tokens=False)["input_ids"]) == 1
    prompt, completion = built(merging, "x:a", "b")
    assert merging.convert_ids_to_tokens(prompt)[-1] == "a"
    assert merging.convert_ids_to_tokens(completion) == ["b", "</s>"]


def test_no_space_is_put_before_the_completion(spaced: PreTrainedTokenizerFast) -> None:
    assert spaced.tokenize("b") == ["▁", "b"]
    _, completion = built(spaced, "a:", "b")
    assert spaced.convert_ids_to_tokens(completion) == ["b", "</s>"]


def test_the_embedded_columns_need_no_naming(characters: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_list([{"prompt": "p", "completion": "c", "answer": "1"}])
    out = build_demonstrations(rows, Spec(prompt=None, completion=None), characters, 10)
    assert set(out.column_names) == {"input_ids", "labels", "prompt", "completion"}
    assert characters.decode(out[0]["input_ids"]) == "<s>pc</s>"


def test_a_long_demonstration_is_refused_and_never_cut(characters: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_list([{"q": "a", "c": "b"}, {"q": "a", "c": "bcd"}])
    assert build_demonstrations(rows, Spec(), characters, 6).num_rows == 2
    with pytest.raises(DataError, match=r"1 of 2 .* sft\.train\.max_length = 5 tokens \(row 2 has 6\).* to 6 or more"):
        build_demonstrations(rows, Spec(), characters, 5)


def test_faults_name_the_section(characters: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_list([{"q": "a", "c": "b"}, {"q": "a", "c": None}])
    with pytest.raises(DataError, match=r"sft\.data\.completion: column 'c' is empty in 1 of 2 rows \(row 2\)"):
        build_demonstrations(rows, Spec(), characters, None)
    with pytest.raises(DataError, match=r"sft\.data\.completion names column 'd'"):
        build_demonstrations(rows, Spec(completion="{d}"), characters, None)
    with pytest.raises(ModelError, match=r"set sft\.data\.format: text"):
        build_demonstrations(rows, Spec(format="chat"), characters, None)


def test_no_space_is_put_before_the_completion_of_a_chat(spaced: PreTrainedTokenizerFast) -> None:
    spaced.chat_template = "{{ bos_token }}{{ messages[0].content }}:"
    prompt, completion = built(spaced, "a", "b", Spec(format="chat"))
    assert spaced.convert_ids_to_tokens(prompt)[-2:] == ["a", ":"]
    assert spaced.convert_ids_to_tokens(completion) == ["b", "</s>"]
