"""The value critic: the value of a state, the same in any batch, from training to disk and back."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_causal_lm, tiny_tokenizer

from reward_models.critics import Critic, ValueCritic
from reward_models.critics.value_model import ValueModel, value_loss
from reward_models.errors import VerifierError

STATES = [
    ("12+30?", ["10+30=40\n", "40+2=42\n"]),
    ("12+30?", []),
    ("12+30?", ["10+30=40\n"]),
    ("a much longer problem than the first one, with words in it", ["and one step\n"]),
]
PROMPTS = [prompt for prompt, _ in STATES]
PATHS = [path for _, path in STATES]


def value_model(squash: Any = "none", **options: Any) -> ValueModel:
    model = ValueModel.from_causal_lm(tiny_causal_lm(), squash=squash, **options)
    with torch.no_grad():
        model.head.linear.weight.mul_(20)  # fresh heads give values near 0
    return model


def critic(squash: Any = "none", *, padding_side: str = "right", **options: Any) -> ValueCritic:
    return ValueCritic(value_model(squash), tiny_tokenizer(padding_side=padding_side), **options)


def test_a_state_has_one_value_alone_and_in_any_batch() -> None:
    alone = [critic().score_many([prompt], [path])[0] for prompt, path in STATES]
    assert len({round(value or 0.0, 3) for value in alone}) == 4
    for options in ({"batch_size": 1}, {"batch_size": 3}, {"batch_size": 64}, {"padding_side": "left"}):
        assert critic(**options).score_many(PROMPTS, PATHS) == pytest.approx(alone, abs=1e-5), options


def test_the_value_is_read_at_the_last_token_of_prompt_and_steps() -> None:
    model, tokenizer = value_model().eval(), tiny_tokenizer()
    row = tokenizer("12+30?10+30=40\n40+2=42\n", return_tensors="pt")
    with torch.no_grad():
        every_position = model(row["input_ids"], row["attention_mask"])
        hidden = model.backbone(**row).last_hidden_state
    assert every_position.shape == row["input_ids"].shape
    assert torch.allclose(every_position, model.head(hidden), atol=1e-6)
    assert critic().score_many(PROMPTS[:1], PATHS[:1]) == pytest.approx([every_position[0, -1].item()], abs=1e-5)
    joined = critic().score_many(PROMPTS[:1], [["10+30=40\n40+2=42\n"]])  # how the text is cut into steps is no matter
    assert joined == pytest.approx([every_position[0, -1].item()], abs=1e-5)


def test_messages_open_the_answer_through_the_chat_template() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    scored = ValueCritic(value_model(), tokenizer)
    by_messages = scored.score_many([[{"role": "user", "content": "q"}]], [["a\n"]])
    rendered = scored.score_many(["<s>[user] q</s>[assistant] "], [["a\n"]])  # as a search tree keeps its prompt
    assert by_messages == pytest.approx(rendered, abs=1e-6)


@pytest.mark.parametrize(
    ("squash", "function", "value_range"),
    [
        ("none", lambda x: x, (-float("inf"), float("inf"))),
        ("tanh", torch.tanh, (-1.0, 1.0)),
        ("sigmoid", torch.sigmoid, (0.0, 1.0)),
    ],
)
def test_squashing_has_a_stated_range(squash: str, function: Any, value_range: tuple[float, float]) -> None:
    plain = torch.tensor(critic().score_many(PROMPTS, PATHS))
    squashed = critic(squash)
    assert isinstance(squashed, Critic)
    assert squashed.value_range == value_range
    assert squashed.score_many(PROMPTS, PATHS) == pytest.approx(function(plain).tolist(), abs=1e-5)
    assert squashed.report.scored == 4


def test_a_bfloat16_backbone_has_a_float32_head() -> None:
    model = ValueModel.from_causal_lm(tiny_causal_lm().to(torch.bfloat16), squash="tanh")
    assert model.backbone.dtype is torch.bfloat16
    assert model.head.linear.weight.dtype is torch.float32
    values = model(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.long))
    assert values.dtype is torch.float32
    assert ValueCritic(model, tiny_tokenizer()).score_many(["q"], [["a"]])[0] is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_folder_holds_all_of_it(tmp_path: Path, dtype: torch.dtype) -> None:
    model = ValueModel.from_causal_lm(tiny_causal_lm().to(dtype), squash="sigmoid", seed=3)
    saved = ValueCritic(model, tiny_tokenizer())
    saved.save_pretrained(tmp_path)
    loaded = ValueCritic.from_pretrained(tmp_path, device="cpu", batch_size=2)
    assert loaded.model.squash == "sigmoid"
    assert loaded.model.backbone.dtype is dtype
    assert loaded.model.head.linear.weight.dtype is torch.float32
    exact = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    assert {name: tensor.tolist() for name, tensor in loaded.model.state_dict().items()} == exact
    tolerance = 1e-6 if dtype is torch.float32 else 1e-2  # in bfloat16 the batch shows in the last bits
    assert loaded.score_many(PROMPTS, PATHS) == pytest.approx(saved.score_many(PROMPTS, PATHS), abs=tolerance)


def test_a_critic_of_rlsp_can_be_read(tmp_path: Path) -> None:
    from rltoolkit.rlsp.critics.critic import Critic as RlspCritic
    from rltoolkit.rlsp.critics.files import save_critic

    trained = RlspCritic.from_policy(tiny_causal_lm(), seed=5)
    save_critic(tmp_path, trained, trained.state_dict())
    ids = torch.tensor([[5, 6, 7]])
    loaded = ValueModel.load(tmp_path / "critic")
    assert loaded.squash == "none"
    assert torch.equal(loaded.eval()(ids, torch.ones_like(ids)), trained.eval()(ids, torch.ones_like(ids)))


def test_folders_without_a_fitting_critic_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VerifierError, match="does not exist; give the folder of a saved critic"):
        ValueModel.load(tmp_path)
    tiny_causal_lm().save_pretrained(tmp_path / "lm")
    with pytest.raises(VerifierError, match="a model without a value head"):
        ValueModel.load(tmp_path / "lm")
    value_model("tanh").save(tmp_path / "critic")
    tiny_causal_lm(hidden_size=16).config.save_pretrained(tmp_path / "critic")
    with pytest.raises(VerifierError, match="does not fit the config beside it"):
        ValueModel.load(tmp_path / "critic")
    (tmp_path / "critic" / "critic.json").write_text('{"squash": "relu"}')
    with pytest.raises(VerifierError, match="says squash 'relu'; expected one of"):
        ValueModel.load(tmp_path / "critic")


def test_a_fresh_head_goes_on_a_saved_backbone(tmp_path: Path) -> None:
    tiny_causal_lm().save_pretrained(tmp_path)
    model = ValueModel.from_backbone(str(tmp_path), squash="tanh", seed=4, device="cpu")
    fresh = ValueModel.from_causal_lm(tiny_causal_lm(), squash="tanh", seed=4)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.allclose(model.eval()(ids, torch.ones_like(ids)), fresh.eval()(ids, torch.ones_like(ids)), atol=1e-6)


def test_an_adapted_policy_lends_its_backbone_with_the_adapters() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(tiny_causal_lm(), LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    plain, lora = ValueModel.from_causal_lm(tiny_causal_lm()), ValueModel.from_causal_lm(adapted)
    ids = torch.tensor([[5, 6, 7]])
    with_adapter = lora.eval()(ids, torch.ones_like(ids))
    assert not torch.allclose(with_adapter, plain.eval()(ids, torch.ones_like(ids)), atol=1e-4)
    with adapted.disable_adapter():
        without = lora(ids, torch.ones_like(ids))
    assert torch.allclose(without, plain(ids, torch.ones_like(ids)), atol=1e-6)


def test_nan_and_too_long_states_are_refused_by_name() -> None:
    scored = critic(max_length=40)
    assert scored.score_many(["too long", "q"], [["a" * 100], ["a"]])[0] is None
    assert scored.report.latest_refusals[0].query == "too long"
    torch.nn.init.constant_(scored.model.head.linear.weight, float("nan"))
    assert scored.score_many(["broken"], [["a"]]) == [None]
    assert scored.last_reasons == ["ValueCritic gave nan, expected a number in [-inf, inf]"]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(VerifierError, match="squash is 'relu'; expected one of"):
        value_model("relu")
    with pytest.raises(VerifierError, match="batch_size is 0"):
        critic(batch_size=0)


# --- the loss ---


def test_the_loss_is_the_mean_squared_error_over_what_counts() -> None:
    values = torch.tensor([[0.5, 9.0], [1.0, -1.0]], requires_grad=True)
    targets = torch.tensor([[1.0, float("nan")], [1.0, 1.0]])
    mask = torch.tensor([[1, 0], [1, 1]])
    loss = value_loss(values, targets, mask)
    assert loss.item() == pytest.approx((0.25 + 0.0 + 4.0) / 3)
    loss.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [pytest.approx([-1 / 3, 0.0]), pytest.approx([0.0, -4 / 3])]


def test_the_loss_is_computed_in_float32_at_least() -> None:
    ones = torch.ones(3)
    assert value_loss(ones.bfloat16(), ones.bfloat16(), ones).dtype is torch.float32
    assert value_loss(ones.double(), ones.double(), ones).dtype is torch.float64


def test_a_loss_over_nothing_or_of_different_shapes_is_refused() -> None:
    with pytest.raises(VerifierError, match="counts no position"):
        value_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2))
    with pytest.raises(VerifierError, match=r"values \(2,\), targets \(2, 1\) and mask \(2,\) differ in shape"):
        value_loss(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2))


def _state(rng: random.Random) -> tuple[list[str], float]:
    """Return one to four steps and 1.0, or 0.0 where one of them holds an x."""
    steps = ["".join(rng.choice("abcdef") for _ in range(4)) + "\n" for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.5:
        index, place = rng.randrange(len(steps)), rng.randrange(4)
        steps[index] = steps[index][:place] + "x" + steps[index][place + 1 :]
    return steps, float(not any("x" in step for step in steps))


def _error_after_training(seed: int, states: int = 1024) -> float:
    """Return the mean squared error on new states."""
    rng = random.Random(seed)
    train, held_out = [_state(rng) for _ in range(states)], [_state(rng) for _ in range(200)]
    policy = tiny_causal_lm(seed, num_hidden_layers=1)
    model, tokenizer = ValueModel.from_causal_lm(policy, squash="sigmoid", seed=seed), tiny_tokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for start in range(0, len(train), 32):
        batch = train[start : start + 32]
        rows = tokenizer(["go:" + "".join(steps) for steps, _ in batch], padding=True, return_tensors="pt")
        values = model(rows["input_ids"], rows["attention_mask"])
        last = rows["attention_mask"].sum(1, keepdim=True) - 1
        counts = torch.zeros_like(values).scatter_(1, last, 1.0)
        targets = torch.tensor([[target] for _, target in batch]).expand_as(values)
        optimizer.zero_grad()
        value_loss(values, targets, counts).backward()
        optimizer.step()
    scores = ValueCritic(model, tokenizer, batch_size=64).score_many(["go:"] * 200, [steps for steps, _ in held_out])
    errors = [(score - target) ** 2 for score, (_, target) in zip(scores, held_out, strict=True) if score is not None]
    assert len(errors) == 200
    return sum(errors) / 200


def test_a_critic_trained_with_the_loss_tells_good_prefixes_from_bad_ones() -> None:
    """A solution fails once a step holds an x; a constant has an error of 0.25.

    Measured: 0.003 to 0.016 with four of five seeds; the fifth has learned nothing yet after so few steps.
    """
    assert _error_after_training(0) < 0.1
