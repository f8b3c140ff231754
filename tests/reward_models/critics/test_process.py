"""The process critic: is this step right, read as yes against no."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_causal_lm, tiny_tokenizer

from reward_models.critics import Critic, ProcessCritic
from reward_models.critics.process import aggregated, problem_text
from reward_models.errors import VerifierError
from reward_models.local_models.encoding import Reading

PROMPT = "12+30?"
STEPS = ["10+30=40\n", "40+2=42\n", "so 42\n"]
MODES = ["latest", "mean", "max", "min"]


def critic(**options: Any) -> ProcessCritic:
    options = {"question": "{prompt}|{before}|{step}?"} | options
    return ProcessCritic(tiny_causal_lm(), tiny_tokenizer(), **options)


def probability_of_yes(text: str) -> float:
    """P(Yes) / (P(Yes) + P(No)) after a text that is written out with its special tokens."""
    model, tokenizer = tiny_causal_lm().eval(), tiny_tokenizer()
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits[0, -1]
    return float(torch.softmax(logits[tokenizer.convert_tokens_to_ids(["Yes", "No"])], 0)[0])


def test_each_mode_is_its_function_of_the_steps_probabilities() -> None:
    steps = [probability_of_yes(f"<s>{PROMPT}|{''.join(STEPS[:i])}|{STEPS[i]}?") for i in range(3)]
    assert max(steps) - min(steps) > 0.05  # else the modes could not be told apart
    expected = {"latest": steps[-1], "mean": sum(steps) / 3, "max": max(steps), "min": min(steps)}
    for mode in MODES:
        assert critic(aggregation=mode).score_many([PROMPT], [STEPS]) == pytest.approx([expected[mode]], abs=1e-5)
    assert critic().score_many([PROMPT], [STEPS]) == pytest.approx([expected["latest"]], abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_state_has_one_score_alone_and_in_any_batch(mode: str) -> None:
    paths = [STEPS, STEPS[:1], ["something else, and much longer than the other steps are\n"], STEPS[:2]]
    alone = [critic(aggregation=mode).score_many([PROMPT], [path])[0] for path in paths]
    for batch_size in (1, 3, 64):
        together = critic(aggregation=mode, batch_size=batch_size).score_many([PROMPT] * 4, paths)
        assert together == pytest.approx(alone, abs=1e-5)


def test_only_the_last_step_is_asked_about_by_default() -> None:
    rows: list[int] = []
    for mode in ("latest", "min"):
        asked = critic(aggregation=mode)
        asked.model.register_forward_pre_hook(
            lambda _module, _args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        asked.score_many([PROMPT, PROMPT], [STEPS, STEPS[:2]])
    assert rows == [2, 3]  # min: the steps that the paths share are asked once


def test_the_root_has_no_step_and_no_score() -> None:
    judged = critic()
    assert judged.score_many([PROMPT], [[]]) == [None]
    assert judged.last_reasons == ["the path is empty: there is no step to judge"]


def test_a_step_that_is_too_long_leaves_its_state_without_a_score() -> None:
    judged = critic(aggregation="mean", max_length=60)
    scores = judged.score_many([PROMPT, PROMPT], [["a", "b" * 100, "c"], ["a"]])
    assert [score is None for score in scores] == [True, False]
    assert judged.last_reasons[0] == "step 1: too long: 111 tokens, limit 60"
    assert judged.report.refused == 1


def test_aggregation_of_failures_is_a_failure() -> None:
    good, bad = Reading(0.5), Reading(None, "nan")
    assert aggregated([bad, good], "latest") == good
    assert aggregated([good, bad], "latest").problem == "the last step: nan"
    for mode in ("mean", "max", "min"):
        assert aggregated([good, bad], mode).value is None  # type: ignore[arg-type]


def test_messages_are_shown_without_roles_and_asked_through_the_chat_template() -> None:
    assert problem_text([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]) == "s\n\nq"
    judged = ProcessCritic(tiny_causal_lm(), tiny_tokenizer(chat=True), question="{prompt}|{before}|{step}?")
    scores = judged.score_many([[{"role": "user", "content": "q"}]], [["a", "b"]])
    assert scores == pytest.approx([probability_of_yes("<s>[user] q|a|b?</s>[assistant] ")], abs=1e-5)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(VerifierError, match="aggregation is 'median'; expected one of"):
        critic(aggregation="median")
    with pytest.raises(VerifierError, match=r"has the fields \['step'\]"):
        critic(question="{step}")
    with pytest.raises(VerifierError, match="'yes' is the tokens"):
        critic(labels=("yes", "no"))


def test_a_saved_model_is_read_back(tmp_path: Path) -> None:
    tiny_causal_lm().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = ProcessCritic.from_pretrained(str(tmp_path), device="cpu", question="{prompt}|{before}|{step}?")
    assert isinstance(loaded, Critic)
    assert loaded.value_range == (0.0, 1.0)
    expected = critic().score_many([PROMPT], [STEPS])
    assert loaded.score_many([PROMPT], [STEPS]) == pytest.approx(expected, abs=1e-6)


def test_the_default_question_shows_problem_solution_and_step() -> None:
    judged = ProcessCritic(tiny_causal_lm(), tiny_tokenizer())
    (score,) = judged.score_many([PROMPT], [STEPS])
    question = "Problem:\n12+30?\n\nSolution so far:\n10+30=40\n40+2=42\n\n\nNext step:\nso 42\n\n\n"
    question += "Is this step right? Answer Yes or No.\n"
    assert score == pytest.approx(probability_of_yes("<s>" + question), abs=1e-5)
