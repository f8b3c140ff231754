"""What reward functions and samplers can do wrong: an error that names it, or left out and counted."""

import copy
import itertools
import logging
import math

import numpy
import pytest
import torch
from transformers import TrainerCallback

from reward_models.errors import VerifierError
from rltoolkit.rlsp.empty import stand_in
from rltoolkit.rlsp.rewards.guard import MANY_IN_A_ROW, RewardGuard, guarded


def lengths_reward(completions, completion_ids, **_):
    return [1.0 - len(ids) / 8 for ids in completion_ids]


def guard_of(scores, role="outcome", **options):
    def mine(completions, **_):
        return scores

    return RewardGuard(mine, role, **options)


def scores_of(guard, count=3, **given):
    scores = guard(prompts=["p"] * count, completions=["c"] * count, completion_ids=[[1]] * count, **given)
    guard.tell()
    return scores


class Numberless:
    """What fails in its own way when it is asked for a number."""

    def __repr__(self):
        return "<a number of nothing>"

    def __float__(self):
        return self.nothing


# ---- the guard alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scores",
    [
        [0.5, None, 1.0],
        (0.5, None, 1),
        iter([0.5, None, True]),
        [torch.tensor(0.5), None, numpy.float32(1)],
    ],
)
def test_scores_come_through_as_numbers(scores):
    assert scores_of(guard_of(scores)) == [0.5, None, 1.0]


def test_a_tensor_of_scores_will_do():
    assert scores_of(guard_of(torch.tensor([0.5, 0.25, 1.0]))) == [0.5, 0.25, 1.0]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0, 0.0], "the outcome reward mine returned 2 scores for 3 responses; return one per response"),
        ([], "the outcome reward mine returned 0 scores for 3 responses"),
        (None, "the outcome reward mine returned None; return a list of 3 scores"),
        (0.5, r"the outcome reward mine returned 0\.5; return a list"),
        ("yes", "the outcome reward mine returned 'yes'; return a list"),
        ([1.0, "0.5", 0.0], r"the outcome reward mine gave response 1 the score '0\.5'; a score is a number that"),
        ([1.0, 0.0, [1.0]], r"gave response 2 the score \[1\.0\]"),
        ([torch.ones(2), 0.0, 1.0], r"gave response 0 the score tensor\(\[1\., 1\.\]\)"),
        (torch.tensor(0.5), r"the outcome reward mine returned tensor\(0\.5000\); return a list of 3"),
        (numpy.array(0.5), r"the outcome reward mine returned array\(0\.5\); return a list of 3"),
        ([0.0, 10**400, 1.0], r"gave response 1 the score 10+\.\.\.; a score is a number that a float can hold"),
        ([0.0, 10**5000, 1.0], "the outcome reward mine"),  # Python does not print it
        ([Numberless(), 0.0, 1.0], "gave response 0 the score <a number of nothing>"),
    ],
)
def test_what_are_no_scores_is_named(returned, message):
    with pytest.raises(VerifierError, match=message):
        scores_of(guard_of(returned))


def test_a_function_that_raises_is_named_with_what_it_raised():
    def broken(completions, **_):
        return [{}[completion] for completion in completions]

    with pytest.raises(VerifierError, match="the outcome reward broken raised KeyError: 'c' when it was given 3") as it:
        scores_of(RewardGuard(broken, "outcome"))
    assert isinstance(it.value.__cause__, KeyError)  # with its traceback


def test_a_generator_that_fails_on_its_way_is_named():
    def lazy(completions, **_):
        return ({"a": 1.0}[completion] for completion in completions)

    with pytest.raises(VerifierError, match="the outcome reward lazy raised KeyError: 'c' when it was given 3"):
        scores_of(RewardGuard(lazy, "outcome"))


def test_an_error_of_our_own_comes_as_it_is():
    def misused(completions, **_):
        raise VerifierError("the dataset has no column 'answer'")

    with pytest.raises(VerifierError, match=r"^the dataset has no column 'answer'$"):
        scores_of(RewardGuard(misused, "outcome"))


def test_nothing_is_raised_before_the_ranks_have_met():
    """TRL joins the ranks right after the call: one that raises there leaves the others waiting."""
    guard = guard_of(None)
    assert guard(prompts=[], completions=["a", "b"], completion_ids=[]) == [None, None]
    with pytest.raises(VerifierError):
        guard.tell()
    guard.tell()  # told once


def test_scores_that_are_not_finite_are_none_counted_and_told_once(caplog):
    logged = []
    guard = guard_of([math.nan, 0.5, -math.inf])
    for _ in range(2):
        assert scores_of(guard, log_metric=lambda *pair: logged.append(pair)) == [None, 0.5, None]
    assert logged == [("reward/outcome_not_finite", 2 / 3)] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the outcome reward mine gave 2 of 3 responses a score that is not finite, first nan to response 0" in (
        caplog.text
    )


def test_exploration_beyond_its_bounds_is_refused():
    assert scores_of(guard_of([0.0, 1.0, None], "exploration", within=(0.0, 1.0))) == [0.0, 1.0, None]
    with pytest.raises(
        VerifierError, match=r"exploration reward mine gave response 2 the score 7\.0; give scores in \[0"
    ):
        scores_of(guard_of([0.0, 1.0, 7.0], "exploration", within=(0.0, 1.0)))


def test_reward_models_are_left_to_trl():
    model = torch.nn.Linear(1, 1)
    assert guarded(model, "outcome") is model
    assert guarded("org/model", "outcome") == "org/model"


def test_responses_of_no_token_get_one_that_stands_in():
    responses, logprobs = [[5, 6], [], [7]], [[-1.0, -2.0], [], [-3.0]]
    assert stand_in(responses, logprobs, 2) == [1]
    assert (responses, logprobs) == ([[5, 6], [2], [7]], [[-1.0, -2.0], [0.0], [-3.0]])
    assert stand_in([[]], None, 2) == [0]


# ---- in a training --------------------------------------------------------------------------------------------------


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def history(trainer, key):
    return [line[key] for line in trainer.state.log_history if key in line]


class Outcome:
    """An outcome reward that answers rollout n with `scores[n](responses)`, the last one for ever."""

    def __init__(self, *answers):
        self.answers, self.calls = answers, 0

    def __call__(self, completions, completion_ids, **_):
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        return answer(completion_ids)


def good(ids):
    return [1.0 - len(row) / 8 for row in ids]


def nothing(ids):
    return [None] * len(ids)


async def awaited(completions, **_):
    return [1.0] * (len(completions) - 1)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (lambda completions, **_: [1.0], "returned 1 scores for 8 responses"),
        (awaited, "the outcome reward awaited returned 7 scores for 8 responses"),
        (Outcome(good, lambda ids: 1 / 0), "the outcome reward Outcome raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_training_ends_with_an_error_that_names_the_function(make_trainer, outcome, message):
    with pytest.raises(VerifierError, match=message):
        make_trainer(outcome=outcome).train()


def test_an_awaited_reward_function_trains(make_trainer):
    async def right(completion_ids, **_):
        return good(completion_ids)

    trainer = make_trainer(outcome=right, max_steps=2)
    before = weights(trainer)
    trainer.train()
    assert changed(before, weights(trainer))
    assert "rewards/right/mean" in trainer.state.log_history[0]  # under its own name


def test_exploration_that_raises_is_named(make_trainer):
    def broken(completions, **_):
        raise OSError("judge is down")

    with pytest.raises(VerifierError, match="the exploration reward broken raised OSError: judge is down"):
        make_trainer(outcome=lengths_reward, exploration=broken).train()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e39])
def test_scores_that_are_not_finite_leave_weights_finite(make_trainer, bad):
    trainer = make_trainer(outcome=Outcome(lambda ids: [bad, *good(ids)[1:]]), weight_decay=0.1)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert len(changed(before, after)) == len(before)
    assert history(trainer, "reward/unscorable") == [0.125, 0.125]


def test_a_rollout_without_a_score_moves_nothing_at_all(make_trainer):
    """Not even by the momentum of the rollout before, or by weight decay; and nothing is logged as if it were zero."""
    trainer = make_trainer(outcome=Outcome(good, nothing, good), weight_decay=0.1, max_steps=6, kl_coef=0.1)
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(weights(trainer))

    trainer.add_callback(Watch())
    trainer.train()
    moved = [len(changed(one, two)) for one, two in itertools.pairwise(seen)]
    assert [count > 0 for count in moved] == [True, False, False, True, True]  # updates 2 to 6
    assert history(trainer, "updates_skipped") == [0, 0, 1, 1, 0, 0]
    assert all(tensor.isfinite().all() for tensor in seen[-1].values())
    lines = [line for line in trainer.state.log_history if line["step"] in (3, 4) and "loss" in line]
    assert lines[0]["reward/unscorable"] == 1.0
    for line in lines:
        assert not {"policy/loss", "value/loss", "entropy", "reward/outcome", "kl"} & set(line)
        assert not any(isinstance(value, float) and math.isnan(value) for value in line.values())


def test_an_update_whose_own_responses_have_no_score_is_skipped(make_trainer):
    """Rows are shuffled into two updates of four: with one score in the rollout, one update has none."""
    trainer = make_trainer(outcome=Outcome(lambda ids: [1.0, *nothing(ids)[1:]]), max_steps=2)
    trainer.train()
    assert sorted(history(trainer, "updates_skipped")) == [0, 1]


def test_accumulated_gradients_count_as_one_update(make_trainer):
    one_of_eight = Outcome(lambda ids: [1.0, *nothing(ids)[1:]])
    trainer = make_trainer(outcome=one_of_eight, max_steps=2, gradient_accumulation_steps=2)
    trainer.train()
    assert history(trainer, "updates_skipped") == [0, 0]


def test_a_function_that_never_gives_a_score_ends_the_training(make_trainer, caplog):
    trainer = make_trainer(outcome=Outcome(nothing), max_steps=100)
    before = weights(trainer)
    with pytest.raises(VerifierError, match=r"could be scored \(no outcome for 8 of 8 responses") as it:
        trainer.train()
    assert str(it.value).startswith(f"{MANY_IN_A_ROW} rollouts in a row")
    assert changed(before, weights(trainer)) == set()
    assert caplog.text.count("a rollout without a single response that can be scored is skipped") == MANY_IN_A_ROW - 1


def test_responses_that_are_all_cut_off_are_no_fault_of_the_reward(make_trainer, caplog):
    """They have scores, and no token that counts: nothing is learned, and nobody is sent to the reward functions."""
    rollouts = MANY_IN_A_ROW + 1
    trainer = make_trainer(
        outcome=lengths_reward, mask_truncated_completions=True, max_completion_length=1, max_steps=2 * rollouts
    )
    sample = trainer._sample
    trainer._sample = lambda *args: ([[5] for _ in sample(*args)[0]], None)  # never an end of sequence
    before = weights(trainer)
    trainer.train()
    assert changed(before, weights(trainer)) == set()
    assert history(trainer, "reward/unscorable") == [0.0] * rollouts
    assert caplog.text.count("a rollout whose 8 responses with a score were all cut off") == rollouts
    assert "look at the reward functions" not in caplog.text
    assert "without a single response that can be scored" not in caplog.text


def test_a_resumed_run_counts_on(make_trainer, policy, tmp_path):
    """Rollouts without a score from before the break count: it ends where it would have ended without one."""
    saving = {"save_strategy": "steps", "save_steps": 2 * (MANY_IN_A_ROW - 1)}
    make_trainer(
        model=copy.deepcopy(policy), outcome=Outcome(nothing), max_steps=2 * (MANY_IN_A_ROW - 1), **saving
    ).train()
    resumed = make_trainer(outcome=Outcome(nothing), max_steps=100)
    with pytest.raises(VerifierError, match=f"{MANY_IN_A_ROW} rollouts in a row"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "out" / f"checkpoint-{saving['save_steps']}"))
    assert resumed.state.global_step == 2 * (MANY_IN_A_ROW - 1)


def test_rollouts_without_a_score_may_come_now_and_then(make_trainer):
    answers = ([nothing] * (MANY_IN_A_ROW - 1) + [good]) * 2
    trainer = make_trainer(outcome=Outcome(*answers), max_steps=2 * len(answers))
    trainer.train()
    assert trainer.state.global_step == 2 * len(answers)


@pytest.mark.parametrize("logprobs", [True, False])
def test_a_response_of_no_token_is_left_out_and_counted(make_trainer, logprobs):
    trainer = make_trainer(outcome=lengths_reward, max_steps=2)
    sample, samples = trainer._sample, []

    def some_empty(*args):
        ids, _ = sample(*args)
        ids[0], ids[3] = [], []
        return ids, [[-1.0] * len(row) for row in ids] if logprobs else None

    trainer._sample = some_empty
    trainer._sample_sink = lambda step, rank, rows: samples.extend(rows)
    trainer.train()
    assert history(trainer, "completions/empty") == [0.25]
    assert history(trainer, "reward/unscorable") == [0.25]
    assert [row.outcome_reward is None for row in samples] == [True, False, False, True, False, False, False, False]
    assert all(tensor.isfinite().all() for tensor in weights(trainer).values())


def test_a_token_that_stands_in_counts_nowhere(make_trainer):
    """A response of no token has no log-prob that a sampler could differ in."""
    trainer = make_trainer(outcome=lengths_reward)
    trainer._sampled_elsewhere = lambda: True
    masks = []
    trainer._sampler_gap.correct = lambda output, logps, mask, metrics: masks.append(mask)
    sample = trainer._sample
    trainer._sample = lambda *args: ([ids if row != 1 else [] for row, ids in enumerate(sample(*args)[0])], None)
    trainer.model.train()
    trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(4)])
    assert masks[0].any(1).tolist() == [True, False, True, True]


def test_an_end_of_sequence_alone_is_a_response(make_trainer):
    """The policy chose to say nothing: one token, which is scored and learned from."""
    trainer = make_trainer(outcome=lengths_reward)
    sample = trainer._sample

    def silent(*args):
        ids, logps = sample(*args)
        return [[2] for _ in ids], logps

    trainer._sample = silent
    trainer.model.train()
    rollout = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(8)])
    assert rollout["loss_mask"].sum() == 8
    assert trainer._metrics["train"]["completions/empty"] == [0.0]
