"""Reward models and pairwise models as oracles, with small real models made here."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_causal_lm, tiny_reward_model, tiny_tokenizer

from reward_models.errors import VerifierError
from reward_models.local_models.encoding import Reading
from reward_models.preference import BradleyTerryOracle, PairwiseModelOracle, Preference
from reward_models.preference.bradley_terry import bradley_terry
from reward_models.preference.pairwise_model import turns

DATA = Path(os.environ.get("RLTOOLKIT_DATA", Path(__file__).parents[3] / "../shared/data")) / "preferences"
FILES = {
    "alpacaeval_judge_pairs.jsonl": ("chosen", "rejected"),
    "autoj_pairwise_1392.jsonl": ("response_1", "response_2"),
    "hh_rlhf_harmless_base_test_1000.jsonl": ("chosen", "rejected"),
    "hhh_alignment_221.jsonl": ("chosen", "rejected"),
}
PROMPTS = ["q", "a longer question, with words?", "12+30="]
FIRSTS = ["yes", "no, and for a long list of reasons", "42"]
SECONDS = ["certainly", "x", "a number between forty and fifty"]


def bt(*, seed: int = 0, chat: bool = False, padding_side: str = "right", **options: Any) -> BradleyTerryOracle:
    return BradleyTerryOracle(tiny_reward_model(seed), tiny_tokenizer(chat=chat, padding_side=padding_side), **options)


def ab(*, padding_side: str = "right", chat: bool = False, **options: Any) -> PairwiseModelOracle:
    return PairwiseModelOracle(tiny_causal_lm(), tiny_tokenizer(chat=chat, padding_side=padding_side), **options)


def probabilities(oracle: BradleyTerryOracle | PairwiseModelOracle, *, swapped: bool = False) -> list[float]:
    texts = (SECONDS, FIRSTS) if swapped else (FIRSTS, SECONDS)
    answers = oracle.prefer_many(PROMPTS, *texts)
    return [answer.probability for answer in answers if answer.probability is not None]


# --- both kinds ---


@pytest.mark.parametrize("make", [bt, ab])
def test_a_pair_has_one_probability_alone_and_in_any_batch(make: Any) -> None:
    """Batches of one, of all, and a tokenizer that would pad on the left: the same to 1e-5."""
    alone = [make().prefer(*pair) for pair in zip(PROMPTS, FIRSTS, SECONDS, strict=True)]
    assert all(0.01 < p < 0.99 and abs(p - 0.5) > 0.01 for p in alone)  # saturated or indifferent: nothing tested
    for options in ({"batch_size": 1}, {"batch_size": 2}, {"batch_size": 64}, {"padding_side": "left"}):
        assert probabilities(make(**options)) == pytest.approx(alone, abs=1e-5), options


@pytest.mark.parametrize("make", [bt, ab])
def test_both_directions_add_up_to_one(make: Any) -> None:
    forward, backward = probabilities(make()), probabilities(make(), swapped=True)
    assert len(forward) == 3
    assert [a + b for a, b in zip(forward, backward, strict=True)] == pytest.approx([1.0] * 3, abs=1e-6)


@pytest.mark.parametrize("make", [bt, ab])
def test_what_is_too_long_has_no_probability_and_is_counted(make: Any) -> None:
    oracle = make(max_length=150)
    answers = oracle.prefer_many(["q"] * 3, ["short", "x" * 400, "y" * 1_000_000], ["s", "z", "w"])
    assert [answer.is_decided for answer in answers] == [True, False, False]
    assert all("too long" in answer.detail and "limit 150" in answer.detail for answer in answers[1:])
    assert oracle.report.failed == 2


def test_the_models_own_context_is_the_limit_if_none_is_given() -> None:
    oracle = BradleyTerryOracle(tiny_reward_model(max_position_embeddings=20), tiny_tokenizer())
    assert [reward is None for reward in oracle.rewards(["", ""], ["a" * 18, "a" * 19])] == [False, True]


@pytest.mark.parametrize("make", [bt, ab])
@pytest.mark.parametrize("name", ["temperature", "batch_size", "max_length"])
def test_settings_of_zero_are_refused(make: Any, name: str) -> None:
    with pytest.raises(VerifierError, match=f"{name} is 0"):
        make(**{name: 0})


# --- Bradley-Terry ---


def test_rewards_are_those_of_the_model_on_the_stated_text() -> None:
    model, tokenizer = tiny_reward_model().eval(), tiny_tokenizer(chat=True)
    oracle = BradleyTerryOracle(model, tokenizer, temperature=2.0)
    chat = [{"role": "user", "content": "q"}]
    texts = ["<s>qyes</s>", "<s>[user] q</s>[assistant] yes</s>"]
    with torch.no_grad():
        rows = [tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"] for text in texts]
        expected = [model(row).logits.item() for row in rows]
    assert oracle.rewards(["q", chat], ["yes", "yes"]) == pytest.approx(expected, abs=1e-5)
    gap = expected[0] - oracle.rewards(["q"], ["no"])[0]  # type: ignore[operator]
    assert oracle.prefer("q", "yes", "no") == pytest.approx(torch.sigmoid(torch.tensor(gap / 2.0)).item(), abs=1e-5)


def test_k_responses_cost_k_rows() -> None:
    oracle = bt(batch_size=4)
    rows: list[int] = []
    hook = oracle.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    responses = ["a", "b", "c", "d"]
    pairs = [(x, y) for x in responses for y in responses if x != y]
    oracle.prefer_many(["q"] * len(pairs), [x for x, _ in pairs], [y for _, y in pairs])
    hook.remove()
    assert rows == [4]


def test_large_gaps_neither_overflow_nor_break_the_sum() -> None:
    for gap in (0.0, 1e-9, 3.0, 40.0, 1e6, -1e6):
        forward = bradley_terry(Reading(gap), Reading(0.0)).probability
        backward = bradley_terry(Reading(0.0), Reading(gap)).probability
        assert forward is not None
        assert backward is not None
        assert forward + backward == 1.0


def test_a_reward_that_is_not_finite_is_no_reward() -> None:
    oracle = bt()
    torch.nn.init.constant_(oracle.model.score.weight, float("nan"))
    (answer,) = oracle.prefer_many(["q"], ["a"], ["b"])
    assert answer.probability is None
    assert answer.detail == "the first text: the reward model gave nan"
    assert oracle.rewards(["q", b"q"], ["a", "a"]) == [None, None]  # type: ignore[list-item]


def test_a_model_with_two_labels_or_no_padding_token_is_refused() -> None:
    with pytest.raises(VerifierError, match="has 2 labels; expected a reward model with one"):
        BradleyTerryOracle(tiny_reward_model(num_labels=2), tiny_tokenizer())
    model = tiny_reward_model()
    model.config.pad_token_id = None
    with pytest.raises(VerifierError, match="has no pad_token_id"):
        BradleyTerryOracle(model, tiny_tokenizer())


def test_a_saved_reward_model_is_read_back_and_a_missing_head_is_not_made_up(tmp_path: Path) -> None:
    model, tokenizer = tiny_reward_model(), tiny_tokenizer()
    model.config.pad_token_id = None  # as many published reward models
    model.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    oracle = BradleyTerryOracle.from_pretrained(str(tmp_path / "rm"), device="cpu", batch_size=2)
    assert probabilities(oracle) == pytest.approx(probabilities(bt()), abs=1e-6)
    half = BradleyTerryOracle.from_pretrained(str(tmp_path / "rm"), device="cpu", dtype=torch.bfloat16)
    assert half.model.dtype is torch.bfloat16
    assert probabilities(half) == pytest.approx(probabilities(bt()), abs=0.05)

    tiny_causal_lm().save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(VerifierError, match=r"lacks the weights \['score.weight'\]"):
        BradleyTerryOracle.from_pretrained(str(tmp_path / "lm"), device="cpu")


def _digit_pair(rng: random.Random) -> tuple[str, str]:
    """Two strings of equal length; the first holds more digits."""
    length = rng.randint(6, 14)
    few, many = sorted(rng.sample(range(length + 1), 2))
    texts = []
    for digits in (many, few):
        letters = [rng.choice("0123456789") for _ in range(digits)]
        letters += [rng.choice("abcdefghijkl") for _ in range(length - digits)]
        rng.shuffle(letters)
        texts.append("".join(letters))
    return texts[0], texts[1]


def _trained_on_digits(seed: int, pairs: int = 1024) -> tuple[float, BradleyTerryOracle, float]:
    """Return the accuracy on held-out pairs before training, the trained oracle, and its accuracy."""
    rng = random.Random(seed)
    train, held_out = ([_digit_pair(rng) for _ in range(count)] for count in (pairs, 200))
    model, tokenizer = tiny_reward_model(seed, num_hidden_layers=1), tiny_tokenizer()
    before = _accuracy(BradleyTerryOracle(model, tokenizer, batch_size=64), held_out)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for start in range(0, len(train), 32):
        texts = [f"say:{text}</s>" for pair in train[start : start + 32] for text in pair]
        rows = tokenizer(texts, padding=True, return_tensors="pt")
        rewards = model(rows["input_ids"], attention_mask=rows["attention_mask"]).logits[:, 0]
        loss = -torch.nn.functional.logsigmoid(rewards[0::2] - rewards[1::2]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    oracle = BradleyTerryOracle(model, tokenizer, batch_size=64)
    return before, oracle, _accuracy(oracle, held_out)


def test_a_trained_reward_model_prefers_what_it_was_trained_to_prefer() -> None:
    """More digits are better; pairs not seen in training. Measured: 90 to 98 % over five seeds."""
    before, oracle, after = _trained_on_digits(0)
    assert after > 0.85
    assert before < 0.7
    assert oracle.model.training  # given back as it was


def _accuracy(oracle: BradleyTerryOracle, pairs: list[tuple[str, str]]) -> float:
    swap = [index % 2 == 1 for index in range(len(pairs))]  # the better one stands in both places
    firsts = [pair[turned] for pair, turned in zip(pairs, swap, strict=True)]
    seconds = [pair[not turned] for pair, turned in zip(pairs, swap, strict=True)]
    answers = oracle.prefer_many(["say:"] * len(pairs), firsts, seconds)
    return sum(answer.majority == float(not turned) for answer, turned in zip(answers, swap, strict=True)) / len(pairs)


# --- A or B ---


def _always(oracle: PairwiseModelOracle, label: str) -> None:
    """Make the model answer with one label, whatever it reads: its logits stop depending on the text."""
    index = tiny_tokenizer().convert_tokens_to_ids(label)
    with torch.no_grad():
        oracle.model.lm_head.weight.zero_()
        oracle.model.lm_head.bias = torch.nn.Parameter(torch.zeros(oracle.model.lm_head.out_features))
        oracle.model.lm_head.bias[index] = 40.0


@pytest.mark.parametrize(("label", "bias"), [("A", 0.5), ("B", -0.5)])
def test_a_model_that_always_takes_the_same_place_is_a_tie_and_found_out(label: str, bias: float) -> None:
    oracle = ab()
    _always(oracle, label)
    answers = oracle.prefer_many(PROMPTS, FIRSTS, SECONDS)
    assert [answer.probability for answer in answers] == [0.5] * 3
    report = oracle.report
    assert report.position_bias == pytest.approx(bias, abs=1e-6)
    assert report.order_gap == pytest.approx(1.0, abs=1e-6)
    assert (report.inconsistent, report.ties, report.both_orders) == (3, 3, 3)


@pytest.mark.parametrize("broken", [0, 1])
def test_one_order_alone_is_no_preference(monkeypatch: pytest.MonkeyPatch, broken: int) -> None:
    oracle = ab()
    readings = [Reading(0.9), Reading(0.2)]
    readings[broken] = Reading(None, "the model gave nan")
    monkeypatch.setattr(oracle._reader, "read", lambda _questions: readings)
    (answer,) = oracle.prefer_many(["q"], ["a"], ["b"])
    assert answer == Preference.failed("the model gave nan")


def test_both_orders_are_the_models_answers_to_the_stated_question() -> None:
    model, tokenizer = tiny_causal_lm().eval(), tiny_tokenizer()
    oracle = PairwiseModelOracle(model, tokenizer, question="{prompt}|{first}|{second}?")
    (answer,) = oracle.prefer_many(["q{x}"], ["{yes}"], ["no"])  # braces in texts are only texts
    a, b = tokenizer.convert_tokens_to_ids(["A", "B"])
    expected = []
    for shown in ("{yes}|no", "no|{yes}"):
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(f"{turns('q{x}')}|{shown}?")["input_ids"]])).logits[0, -1]
        expected.append(torch.softmax(logits[[a, b]], 0)[0].item())
    assert [answer.first_in_front, answer.second_in_front] == pytest.approx(expected, abs=1e-5)
    assert answer.probability == pytest.approx((expected[0] + 1 - expected[1]) / 2, abs=1e-5)


def test_the_default_question_is_that_of_the_published_pairwise_models() -> None:
    """The context as their own template renders it, and the whole as one message of the user."""
    oracle = ab(chat=True, bos=False)
    seen: list[str] = []
    oracle.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.extend(tiny_tokenizer().batch_decode(kwargs["input_ids"])), with_kwargs=True
    )
    chat = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "R"}, {"role": "user", "content": "S"}]
    oracle.prefer(chat, "one", "two")
    context = "\n\n<turn> user\n Q\n<turn> assistant\n R\n<turn> user\n S\n"
    asked = f"[CONTEXT] {context} [RESPONSE A] one [RESPONSE B] two \n"
    assert seen[0] == f"[user] {asked}</s>[assistant] "
    assert "[RESPONSE A] two [RESPONSE B] one" in seen[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("AB", "B")}, "'AB' is the tokens"),
        ({"question": "{prompt} {first}"}, r"has the fields \['first', 'prompt'\]"),
        ({"question": "{prompt} {first} {second} {more}"}, "expected"),
        ({"question": "{prompt} {first} {second"}, "cannot be read"),
    ],
)
def test_labels_and_questions_are_checked_at_the_start(options: dict[str, Any], message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        ab(**options)


def test_a_saved_pairwise_model_is_read_back(tmp_path: Path) -> None:
    tiny_causal_lm().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    oracle = PairwiseModelOracle.from_pretrained(str(tmp_path), device="cpu", batch_size=2)
    assert probabilities(oracle) == pytest.approx(probabilities(ab()), abs=1e-6)


# --- real pairs ---


@pytest.mark.parametrize("file", FILES)
def test_real_pairs_get_a_probability_each(file: str) -> None:
    """The shortest 20 rows of each file: plain prompts and conversations, letters the tokenizer does not know."""
    if not (DATA / file).is_file():
        pytest.skip(f"no {DATA / file}; set RLTOOLKIT_DATA to the folder that holds preferences/")
    rows = [json.loads(line) for line in (DATA / file).read_text(encoding="utf-8").splitlines()]
    first, second = FILES[file]
    rows = sorted(rows, key=lambda row: len(str(row["prompt"])) + len(row[first]) + len(row[second]))[:20]
    columns = [row["prompt"] for row in rows], [row[first] for row in rows], [row[second] for row in rows]
    for oracle in (bt(chat=True, max_length=2048), ab(chat=True, max_length=2048)):
        answers = oracle.prefer_many(*columns)
        assert [answer.detail for answer in answers if not answer.is_decided] == []
        assert len(answers) == 20
