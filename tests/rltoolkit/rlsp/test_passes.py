"""Work in proportion to real tokens changes no number: losses, gradients and runs against the plain, padded way."""

import pytest
import torch
from peft import LoraConfig
from trl import GRPOTrainer
from trl.trainer import utils

from rltoolkit.rlsp import forward
from rltoolkit.rlsp.forward import logps_of, row_lengths, rows_of, score, values_of
from rltoolkit.rlsp.passes import Passes

CLOSE = {"rtol": 1e-4, "atol": 2e-6}
"""float32 sums of a few dozen terms in another order."""
WHOLE = 10**6
"""Tokens that no minibatch has: all its rows go through the models together."""
LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
KINDS = {"separate": None, "shared": None, "lora": LORA}
PROMPTS, TOKENS = [5, 2, 7, 3, 1, 6], [1, 8, 3, 5, 2, 8]


def alternating(completion_ids, **_):
    """A reward that depends on the tokens alone."""
    return [sum(token % 2 for token in ids) / max(1, len(ids)) for ids in completion_ids]


def side_by_side(lengths, *, on_the_left):
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, max(lengths) - length :] = 1
    return mask if on_the_left else mask.flip(1)


@pytest.fixture
def minibatch():
    """Six ragged rows as TRL pads them, with everything that an update reads; the fourth row is unscorable."""
    draw = torch.Generator().manual_seed(1)
    prompt, completion = side_by_side(PROMPTS, on_the_left=True), side_by_side(TOKENS, on_the_left=False)
    loss_mask = completion.clone()
    loss_mask[3] = 0

    def noise(*further):
        return torch.randn(*completion.shape, *further, generator=draw)

    return {
        "prompt_ids": torch.randint(3, 14, prompt.shape, generator=draw) * prompt,
        "prompt_mask": prompt,
        "completion_ids": torch.randint(3, 14, completion.shape, generator=draw) * completion,
        "completion_mask": completion,
        "loss_mask": loss_mask,
        "old_per_token_logps": noise() * 0.1 - 2.6,
        "advantages": noise(),
        "returns": noise(1),
        "old_values": noise(1) * 0.1,
        "num_items_in_batch": loss_mask.sum() * 2,
    }


def trainer_of(make_trainer, kind, **options):
    options = {"peft_config": KINDS[kind]} | options
    trainer = make_trainer(outcome=alternating, critic=kind, **options)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    with torch.no_grad():  # adapters start at zero, and a fresh critic says little: give every part something to say
        draw = torch.Generator().manual_seed(2)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.05)
    return trainer


def plainly(trainer, inputs):
    """Log-probs and values of the padded batch: TRL's own pass, and the critic on the same ids."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    width = inputs["completion_ids"].size(1)
    logps, _, _ = GRPOTrainer._get_per_token_logps_and_entropies(trainer, trainer.model, ids, mask, width)
    values = trainer.critic(ids, mask)
    return logps, values[:, -width - 1 : -1]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_moved_to_the_left_say_what_padded_rows_say(make_trainer, minibatch, kind):
    trainer = trainer_of(make_trainer, kind)
    mask = minibatch["completion_mask"].bool()
    with torch.no_grad():
        logps, values = plainly(trainer, minibatch)
        scored = score(trainer.model, minibatch)
        torch.testing.assert_close(scored.logps[mask], logps[mask], **CLOSE)
        torch.testing.assert_close(scored.values[..., 0][mask], values[mask], **CLOSE)
        torch.testing.assert_close(logps_of(trainer.model, minibatch)[0][mask], logps[mask], **CLOSE)
        torch.testing.assert_close(values_of(trainer.critic, minibatch)[0][..., 0][mask], values[mask], **CLOSE)
    for tensor in scored:
        assert tensor[~mask].abs().sum() == 0


def gradients(trainer, inputs):
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def plain_loss(trainer, inputs):
    """The two losses as the paper has them, on the padded batch, all rows at once."""
    mask, (logps, values) = inputs["loss_mask"], plainly(trainer, inputs)
    ratio, advantages = (logps - inputs["old_per_token_logps"]).exp(), inputs["advantages"]
    policy = -torch.min(ratio * advantages, ratio.clamp(1 - trainer.epsilon_low, 1 + trainer.epsilon_high) * advantages)
    old, returns = inputs["old_values"][..., 0], inputs["returns"][..., 0]
    clipped = old + (values - old).clamp(-trainer.args.cliprange_value, trainer.args.cliprange_value)
    value = 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)
    return ((policy + trainer.args.vf_coef * value) * mask).sum() / (inputs["num_items_in_batch"] / 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [None, 1, 20, WHOLE])
def test_loss_and_gradients_are_those_of_the_plain_batch(make_trainer, minibatch, kind, budget):
    trainer = trainer_of(make_trainer, kind, micro_batch_tokens=budget)
    parts = len(trainer._passes.parts(minibatch))
    assert parts == {1: 5, WHOLE: 1}.get(budget, parts)  # the unscorable row is not read at all
    loss, found = gradients(trainer, minibatch)
    trainer.model.zero_grad()
    expected = plain_loss(trainer, minibatch)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), **CLOSE)
    wanted = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def test_metrics_are_means_over_all_parts(make_trainer, minibatch):
    logged, trainer = [], trainer_of(make_trainer, "shared")
    for budget in (1, WHOLE):
        trainer.args.micro_batch_tokens = budget
        trainer._metrics["train"].clear()
        gradients(trainer, minibatch)
        logged.append({name: values[-1] for name, values in trainer._metrics["train"].items()})
    assert logged[0].keys() == logged[1].keys() >= {"policy/loss", "value/loss", "entropy"}
    for name, value in logged[0].items():
        assert value == pytest.approx(logged[1][name], rel=1e-4, abs=1e-6), name


def test_nothing_is_learned_where_no_row_counts_and_every_parameter_still_takes_part(make_trainer, minibatch):
    trainer = trainer_of(make_trainer, "separate")
    loss, found = gradients(trainer, minibatch | {"loss_mask": torch.zeros_like(minibatch["loss_mask"])})
    assert loss == 0
    assert len(found) == len(list(trainer.model.parameters()))
    assert all(gradient.abs().sum() == 0 for gradient in found.values())


def test_the_head_projects_no_prompt_and_no_padding(make_trainer, minibatch, monkeypatch):
    trainer = trainer_of(make_trainer, "shared")
    projected, function = [], utils._ChunkedLogProbFunction

    class Counting:
        @staticmethod
        def apply(hidden, *arguments):
            projected.append(hidden.shape[0])
            return function.apply(hidden, *arguments)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counting)
    score(trainer.model, minibatch)
    assert projected == [sum(TOKENS)]


def test_the_head_is_left_to_trl_where_trl_itself_projects_labelled_positions_only(
    make_trainer, minibatch, monkeypatch
):
    trainer = trainer_of(make_trainer, "shared")
    kept, only = [], forward._only
    monkeypatch.setattr(forward, "_only", lambda *args: kept.append(1) or only(*args))
    for trl_does, times in ((False, 1), (True, 0)):
        kept.clear()
        monkeypatch.setattr(forward, "_use_triton", lambda _device, trl_does=trl_does: trl_does)
        score(trainer.model, minibatch)
        assert len(kept) == times


def test_rows_are_cut_to_their_longest_completion(minibatch):
    part = rows_of(minibatch, [4, 0])
    assert part["completion_ids"].tolist() == minibatch["completion_ids"][[4, 0], :2].tolist()
    assert part["returns"].shape == (2, 2, 1)
    assert part["prompt_ids"].shape == (2, 7)  # models get it moved to the left
    assert row_lengths(part) == [PROMPTS[4] + TOKENS[4], PROMPTS[0] + TOKENS[0]]
    assert part["num_items_in_batch"] is minibatch["num_items_in_batch"]


SAME_END = {"rtol": 1e-6, "atol": 1e-7}
"""Rounding (1e-8 is seen); what is learned is to be ten thousand times more, so that half of it would show."""


def weights_of(trainer):
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def assert_same_end(start, first, second):
    assert start.keys() == first.keys() == second.keys()
    moved = {name: (first[name] - weights).abs().max() for name, weights in start.items()}
    for of_critic in (False, True):
        assert max(most for name, most in moved.items() if ("critic." in name) is of_critic) > 1e-3
    for name, weights in first.items():
        torch.testing.assert_close(weights, second[name], **SAME_END, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_where_the_plain_one_ends(make_trainer, policy, kind):
    """Two epochs over each rollout and two accumulation steps, some responses unscorable."""
    start = {name: tensor.clone() for name, tensor in policy.state_dict().items()}

    def outcome(completion_ids, **_):
        return [
            None if sum(ids) % 5 == 0 else score
            for ids, score in zip(completion_ids, alternating(completion_ids), strict=True)
        ]

    ends = []
    for budget in (12, WHOLE):
        again = type(policy)(policy.config)
        again.load_state_dict(start)
        options = {
            "num_iterations": 2,
            "gradient_accumulation_steps": 2,
            "critic": kind,
            "max_steps": 4,
            "optim": "sgd",
            "learning_rate": 0.1,
            "critic_learning_rate": 0.1,
        }
        torch.manual_seed(3)
        trainer = make_trainer(
            outcome=outcome, model=again, peft_config=KINDS[kind], micro_batch_tokens=budget, **options
        )
        began = weights_of(trainer)
        trainer.train()
        ends.append(weights_of(trainer))
    assert_same_end(began, *ends)


@pytest.mark.parametrize(("kl", "critic", "passes"), [(0.0, "separate", 0), (0.0, "shared", 1), (0.1, "separate", 1)])
def test_one_update_per_rollout_needs_no_old_log_probs_unless_something_else_does(
    make_trainer, monkeypatch, kl, critic, passes
):
    trainer = trainer_of(make_trainer, critic, gradient_accumulation_steps=2, kl_coef=kl)
    asked = []
    scored = Passes._scored
    monkeypatch.setattr(Passes, "_scored", lambda self, inputs: asked.append(1) or scored(self, inputs))
    rollout = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(8)])
    assert len(asked) == passes
    assert ("old_per_token_logps" in rollout) is bool(passes)
    minibatch = {name: tensor for name, tensor in rollout.items() if name != "sampling_per_token_logps"}
    loss, found = gradients(trainer, minibatch)
    with torch.no_grad():
        old = score(trainer.model, rollout).logps
    other_loss, others = gradients(trainer, minibatch | {"old_per_token_logps": old})
    torch.testing.assert_close(loss, other_loss, **CLOSE)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, others[name], **CLOSE)


def test_values_come_with_the_old_log_probs_in_one_pass(make_trainer, monkeypatch):
    trainer = trainer_of(make_trainer, "shared", kl_coef=0.1)
    backbone, calls = trainer.model.model, []
    generate = trainer.model.generate
    handle = []

    def quietly(*args, **kwargs):
        for hook in handle:
            hook.remove()
        output = generate(*args, **kwargs)
        handle[:] = [backbone.register_forward_hook(lambda *_: calls.append(1))]
        return output

    monkeypatch.setattr(trainer.model, "generate", quietly)
    trainer.args.micro_batch_tokens = WHOLE
    trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(8)])
    assert len(calls) == 1  # the reference is a model of its own


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_of_an_adapter_is_the_policy_without_it(make_trainer, kind):
    trainer = trainer_of(make_trainer, kind, kl_coef=0.1, peft_config=LORA)
    rollout = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(8)])
    mask = rollout["completion_mask"].bool()
    assert trainer.ref_model is None
    with torch.no_grad():
        values = plainly(trainer, rollout)[1]
        with trainer.model.disable_adapter():
            expected = plainly(trainer, rollout)[0]
    torch.testing.assert_close(rollout["old_values"][..., 0][mask], values[mask], **CLOSE)  # with the adapter on
    torch.testing.assert_close(rollout["ref_per_token_logps"][mask], expected[mask], **CLOSE)
    assert not torch.allclose(rollout["ref_per_token_logps"][mask], rollout["old_per_token_logps"][mask], atol=1e-3)
