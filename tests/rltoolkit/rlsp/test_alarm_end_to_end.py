"""The hacking alarm on a trainer that really drifts into hacking, and on one that does not."""

import copy
import json
import logging

import pytest
import torch
from datasets import Dataset

from reward_models.exploration import LengthExploration
from reward_models.reward_func import as_reward_func
from reward_models.verdict import Verdict
from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.rlsp.watch.alarm import HackingAlarm

SHORT = 5  # characters of a right answer at most
HACKS, HONEST = 0.1, 0.9  # alpha: what a right answer weighs beside a long one


class ShortIsRight:
    """Right are short responses, whatever they say: the opposite of what a reward for length pays for."""

    def check(self, response, reference):
        return Verdict.correct(response) if len(response) <= SHORT else Verdict.wrong(response)


@pytest.fixture
def brief_policy(policy, tokenizer):
    """A policy that answers every prompt with two to four digits, as a stage one would have taught it."""
    torch.manual_seed(1)
    rows = countdown_rows("train", 64)
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for step in range(60):
        ids, labels = torch.zeros(8, 24, dtype=torch.long), torch.full((8, 24), -100)
        for place, row in enumerate(rows[step * 8 % 64 :][:8]):
            prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
            answer = [digits[int(torch.randint(10, ()))] for _ in range(int(torch.randint(2, 5, ())))]
            whole = torch.tensor([*prompt, *answer, tokenizer.eos_token_id])
            ids[place, : len(whole)] = whole
            labels[place, len(prompt) : len(whole)] = whole[len(prompt) :]
        optimiser.zero_grad()
        policy(input_ids=ids, labels=labels).loss.backward()  # padding stands behind, where no token looks
        optimiser.step()
    return policy


@pytest.fixture
def trainer_of(make_trainer, brief_policy):
    """A trainer of 12 rollouts of 32 responses, its held-out problems measured before, twice in between, and after."""
    rows = [{"prompt": row["prompt"], "answer": row["answer"]} for row in countdown_rows("test", 48)]

    def trainer_of(alpha, **options):
        settings = {
            "no_answer_penalty": 0.0,
            "max_completion_length": 12,
            "max_steps": 24,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "kl_coef": 0.0,
            "per_device_train_batch_size": 16,
            "per_device_eval_batch_size": 48,
            "eval_strategy": "steps",
            "eval_steps": 8,
            "eval_on_start": True,
        }
        return make_trainer(
            model=copy.deepcopy(brief_policy),
            outcome=as_reward_func(ShortIsRight(), pool=False),
            exploration=LengthExploration(12),
            eval_dataset=Dataset.from_list(rows),
            alpha=alpha,
            **{**settings, **options},
        )

    return trainer_of


def logged(trainer, key):
    return [(entry["step"], entry[key]) for entry in trainer.state.log_history if key in entry]


def test_a_trainer_that_drifts_into_hacking_is_called_out_once_with_its_samples(trainer_of, caplog, tmp_path):
    kept = {}
    alarm = HackingAlarm(tmp_path / "samples")
    trainer = trainer_of(HACKS, sink=lambda step, rank, rows: kept.update({(step, rank): rows}), alarm=alarm)
    with caplog.at_level(logging.WARNING, logger="rltoolkit"):
        trainer.train()

    held_out = [rate for _, rate in logged(trainer, "eval_reward/outcome")]
    paid = [value for _, value in logged(trainer, "reward/exploration_paid")]
    assert held_out[0] > 0.8 > 0.2 > held_out[-1]  # it really fell
    assert paid[0] < 0.4 < 0.8 < paid[-1]  # and exploration really rose

    (event,) = trainer.alarm.events  # it rings on, but begins once
    (warning,) = [record.message for record in caplog.records if "hacking alarm" in record.message]
    assert warning == event.text(str(tmp_path / "samples"))
    assert f"alarm at step {event.now.step}: since step 0" in warning
    begins = event.now.step
    assert {value for step, value in logged(trainer, "alarm/hacking") if step <= begins} <= {0.0}
    assert {value for step, value in logged(trainer, "alarm/hacking") if step > begins} == {1.0}
    assert dict(logged(trainer, "eval_alarm/hacking"))[24] == 1.0

    assert len(event.suspects) == 5
    for suspect in event.suspects:
        row = kept[suspect.step, suspect.rank][suspect.row]
        assert (row.verdict, row.exploration_reward) == ("wrong", pytest.approx(suspect.paid))
        assert suspect.step < begins
        assert f"{tmp_path}/samples/step-{suspect.step:06d}-rank-0.parquet row {suspect.row} (paid" in warning
    wrong = [
        row.exploration_reward
        for (step, _), rows in kept.items()
        if step < begins
        for row in rows
        if row.verdict == "wrong"
    ]
    assert sorted(wrong)[-5:] == pytest.approx(sorted(suspect.paid for suspect in event.suspects))


def test_it_stays_silent_where_answers_stay_right(trainer_of, caplog):
    trainer = trainer_of(HONEST)
    with caplog.at_level(logging.WARNING, logger="rltoolkit"):
        trainer.train()
    assert trainer.alarm.ringing is False
    assert trainer.alarm.measurements == 4
    assert {value for _, value in logged(trainer, "alarm/hacking")} == {0.0}
    assert next(step for step, _ in logged(trainer, "alarm/hacking")) == 9  # nothing to compare before
    assert not [record for record in caplog.records if "hacking" in record.message]


def test_a_resumed_run_knows_what_the_first_part_has_seen(trainer_of, tmp_path):
    straight = trainer_of(HACKS, save_strategy="steps", save_steps=4, max_steps=8)
    straight.train()
    checkpoint = tmp_path / "out" / "checkpoint-4"
    assert json.loads((checkpoint / "rlsp_state.json").read_text())["hacking_alarm"]["history"]["eval"]
    resumed = trainer_of(HACKS, eval_on_start=False, max_steps=8)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.alarm.state_dict() == straight.alarm.state_dict()
    assert straight.alarm.events


def test_without_an_exploration_reward_there_is_nothing_to_watch(make_trainer, brief_policy, prompts):
    trainer = make_trainer(
        model=brief_policy,
        outcome=as_reward_func(ShortIsRight(), pool=False),
        eval_dataset=prompts,
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer.train()
    assert trainer.alarm.measurements == 2
    assert trainer.alarm.ringing is None
    assert not logged(trainer, "alarm/hacking")
