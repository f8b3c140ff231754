"""A reward model from TRL's RewardTrainer is asked in the form in which it was trained."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tiny_models import tiny_reward_model, tiny_tokenizer
from trl import RewardConfig, RewardTrainer, apply_chat_template

from reward_models.local_models.encoding import TextEncoder
from reward_models.preference import BradleyTerryOracle

QUESTION = [{"role": "user", "content": "which?"}]


def rows(count: int, *, chat: bool) -> list[dict[str, Any]]:
    """Pairs in which the longer answer is the better one."""
    texts = [{"prompt": "which?", "chosen": "ab" * (3 + i % 5), "rejected": "ab" * (1 + i % 2)} for i in range(count)]
    if not chat:
        return texts
    return [
        {
            "prompt": QUESTION,
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
        }
        for row in texts
    ]


def trainer(folder: Path, *, chat: bool, data: list[dict[str, Any]] | None = None, **options: Any) -> RewardTrainer:
    arguments = RewardConfig(
        output_dir=str(folder),
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    return RewardTrainer(
        tiny_reward_model(),
        args=arguments,
        processing_class=tiny_tokenizer(chat=chat),
        train_dataset=Dataset.from_list(data or rows(64, chat=chat)),
    )


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "conversational"])
def test_our_tokens_are_those_of_the_training(tmp_path: Path, chat: bool) -> None:
    trained_on = trainer(tmp_path, chat=chat).train_dataset[0]
    encoder = TextEncoder(tiny_tokenizer(chat=chat))
    prompt = QUESTION if chat else "which?"
    assert list(encoder.answered(prompt, "ababab").ids or ()) == trained_on["chosen_ids"]
    assert list(encoder.answered(prompt, "ab").ids or ()) == trained_on["rejected_ids"]


def test_after_a_message_of_the_assistant_our_tokens_are_those_of_trl(tmp_path: Path) -> None:
    """RewardTrainer takes the response for a message of its own; TRL's generation continues the message."""
    prompt = [*QUESTION, {"role": "assistant", "content": "I say "}]
    data = [{**row, "prompt": prompt} for row in rows(4, chat=True)]
    trained_on = trainer(tmp_path, chat=True, data=data).train_dataset[0]
    tokenizer = tiny_tokenizer(chat=True)
    encoder = TextEncoder(tokenizer)
    assert list(encoder.answered(prompt, "ababab").ids or ()) == trained_on["chosen_ids"]
    generated_from = apply_chat_template({"prompt": prompt}, tokenizer)["prompt"]
    assert generated_from == "<s>[user] which?</s>[assistant] I say "
    expected = tokenizer(generated_from + "ab", add_special_tokens=False)["input_ids"]
    assert list(encoder.opened(prompt, "ab").ids or ()) == expected


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "conversational"])
def test_a_model_that_trl_has_trained_and_saved_prefers_what_it_learned(tmp_path: Path, chat: bool) -> None:
    training = trainer(
        tmp_path, chat=chat, max_steps=16, per_device_train_batch_size=16, learning_rate=3e-3, seed=0, data_seed=0
    )
    training.train()
    training.save_model(str(tmp_path / "rm"))
    oracle = BradleyTerryOracle.from_pretrained(str(tmp_path / "rm"), device="cpu")
    prompt = QUESTION if chat else "which?"
    answers = oracle.prefer_many([prompt] * 4, ["ab" * 5, "ab" * 3, "ab" * 6, "ab"], ["ab", "abab", "abab", "ab" * 7])
    assert [answer.majority for answer in answers] == [1.0, 1.0, 1.0, 0.0]
