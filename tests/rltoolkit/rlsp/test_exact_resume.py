"""A run that goes on from a checkpoint ends as if nothing had happened, to the bit: weights, optimiser, log."""

import copy
import random

import pytest
import torch
import transformers
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback

from reward_models.exploration import LengthExploration

ADAPTER = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def coin(completions, completion_ids, **_):
    """Right or wrong by the first token: varied, and the same for the same response."""
    return [float(ids[0] % 2) for ids in completion_ids]


def graded(completions, completion_ids, **_):
    return [(sum(ids) % 5) / 4 for ids in completion_ids]


@pytest.fixture
def make(make_trainer, policy, prompts):
    """Trainers that all start alike: 2 updates per rollout of 4, 8 prompts, so 4 updates per epoch."""

    def build(peft=False, **options):
        settings = {
            "outcome": graded,
            "dataset": prompts.select(range(8)),
            "per_device_train_batch_size": 2,
            "steps_per_generation": 2,
            "max_completion_length": 4,
            "save_strategy": "steps",
            "kl_coef": 0.1,
            "max_steps": 6,
            "weight_decay": 0.1,
            "lr_scheduler_type": "constant",
            **options,
        }
        torch.manual_seed(1)
        random.seed(1)
        return make_trainer(
            model=copy.deepcopy(policy), peft_config=LoraConfig(**ADAPTER) if peft else None, **settings
        )

    return build


def plain(value):
    """Tensors as their bits, so that == compares all there is, NaN included."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.tolist()) if not value.is_floating_point() else value.double().numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def logged(trainer):
    def is_clock(key):
        return "time" in key or "per_second" in key or key.startswith("profiling")

    return [{key: value for key, value in line.items() if not is_clock(key)} for line in trainer.state.log_history]


def everything(trainer):
    return {
        "weights": plain(dict(trainer.model.state_dict())),
        "optimizer": plain(trainer.optimizer.state_dict()),
        "schedule": trainer.lr_scheduler.state_dict()["last_epoch"],
        "log": logged(trainer),
        "random": plain(torch.get_rng_state()),
        "remembered": {name: part.state_dict() for name, part in trainer._remembering.items()},
    }


def assert_same(straight, resumed):
    one, two = everything(straight), everything(resumed)
    for part in one:  # part by part: the report of a difference stays readable
        assert one[part] == two[part], part


CASES = {
    "at a boundary": (2, {}),
    "asked for inside a rollout": (3, {}),
    "at the end of an epoch": (4, {}),
    "in the second epoch, inside a rollout": (5, {"max_steps": 8}),
    "two epochs of PPO, accumulated gradients": (3, {"num_iterations": 2, "gradient_accumulation_steps": 2}),
    "with numbers that are not logged yet": (2, {"logging_steps": 3}),
    "prompts skipped, inside an epoch": (
        6,
        {
            "prompt_curriculum": "skip",
            "curriculum_visits": 1,
            "curriculum_revisit": 2,
            "outcome": coin,
            "max_steps": 10,
        },
    ),
    "prompts weighed down": (
        6,
        {"prompt_curriculum": "down_weight", "curriculum_visits": 1, "outcome": coin, "max_steps": 8},
    ),
    "two streams, a shared critic": (
        3,
        {
            "critic": "shared",
            "advantage": "decoupled",
            "exploration_control": "best",
            "outcome_floor": 0.9,
            "exploration": LengthExploration(target_tokens=4),
        },
    ),
    "adapters for policy and critic": (3, {"critic": "lora", "peft": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_ends_like_one_that_never_stopped(make, tmp_path, case):
    save_at, options = CASES[case]
    straight = make(save_steps=save_at, **options)
    straight.train()
    per_rollout = straight.args.micro_steps_per_rollout // straight.args.gradient_accumulation_steps
    written = -(-save_at // per_rollout) * per_rollout  # the end of the rollout in which it was asked for
    checkpoint = tmp_path / "out" / f"checkpoint-{written}"
    assert checkpoint.is_dir()
    assert written < straight.state.max_steps
    steps = {int(path.name.partition("-")[2]) for path in checkpoint.parent.glob("checkpoint-*")}
    assert not any(step % per_rollout for step in steps)  # none was written inside a rollout
    resumed = make(save_steps=save_at, **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert_same(straight, resumed)


class StopsAt(TrainerCallback):
    """Ends the training after a step, at once or when an evaluation is through, and asks for no checkpoint."""

    def __init__(self, step, event):
        self.step, self.event = step, event

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= self.event == "step" and state.global_step == self.step

    def on_evaluate(self, args, state, control, **kwargs):
        control.should_training_stop |= self.event == "evaluation" and state.global_step == self.step


@pytest.mark.parametrize("event", ["step", "evaluation"])
def test_a_checkpoint_that_waits_is_written_when_training_is_stopped(make, prompts, tmp_path, event):
    options = {"max_steps": 8, "eval_dataset": prompts.select(range(8, 12)), "logging_steps": 4}
    options |= {"eval_strategy": "steps", "eval_steps": 3, "per_device_eval_batch_size": 4, "save_steps": 3}
    straight = make(**options)
    straight.train()
    stopped = make(**options, output_dir=str(tmp_path / "stopped"))
    stopped.add_callback(StopsAt(3, event))
    stopped.train()
    assert stopped.state.global_step == 3
    checkpoint = tmp_path / "stopped" / "checkpoint-3"  # inside a rollout of two updates: it could not wait
    assert checkpoint.is_dir()
    resumed = make(**options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert_same(straight, resumed)


def test_three_updates_and_three_more_are_six(make, tmp_path):
    """The first training is over in the middle of a rollout; the second learns from the rest of it."""
    straight = make(save_steps=100)
    straight.train()
    first = make(save_steps=100, max_steps=3, output_dir=str(tmp_path / "half"))
    first.train()
    second = make(save_steps=100)
    second.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-3"))
    one, two = everything(straight), everything(second)
    for part in ("weights", "optimizer", "schedule", "random", "remembered"):
        assert one[part] == two[part], part


def test_a_trainer_that_trains_again_begins_with_a_rollout_of_its_own(make):
    """After three updates half a rollout is left over, which is none of the next training."""
    trainer = make(max_steps=3, save_strategy="no")
    rollouts = []
    sample = trainer._generate_single_turn
    trainer._generate_single_turn = lambda *args, **kwargs: (
        rollouts.append(trainer.state.global_step) or sample(*args, **kwargs)
    )
    trainer.train()
    trainer.train()
    assert rollouts == [0, 2, 0, 2]


@pytest.mark.parametrize(
    "other",
    [
        {"steps_per_generation": 4},  # there is no third minibatch in what is left
        {"steps_per_generation": 1},
        {"per_device_train_batch_size": 4},
        {"num_iterations": 2},
        {"gradient_accumulation_steps": 2},
    ],
)
def test_what_was_in_flight_is_dropped_where_rollouts_are_divided_otherwise(make, tmp_path, caplog, other):
    make(save_steps=100, max_steps=3).train()
    resumed = make(save_steps=100, **other)
    asked = []
    sample = resumed._generate_single_turn
    resumed._generate_single_turn = lambda *args, **kwargs: asked.append(1) or sample(*args, **kwargs)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    name, value = next(iter(other.items()))
    assert f"this one has {name} {value}; what was in flight is dropped" in caplog.text
    assert resumed.state.global_step == 6
    assert asked  # it learns from responses of its own


def test_a_checkpoint_of_another_number_of_processes_is_used_without_what_was_in_flight(make, tmp_path, caplog):
    first = make(save_steps=100, max_steps=3)
    first.train()
    checkpoint = tmp_path / "out" / "checkpoint-3"
    state = torch.load(checkpoint / "in_flight_0.pt", weights_only=True)
    torch.save({**state, "processes": 2}, checkpoint / "in_flight_0.pt")
    resumed = make(save_steps=100)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert "is of a run with processes 2, this one has processes 1" in caplog.text
    assert resumed.state.global_step == 6


def test_a_resume_does_not_complain_of_the_critic_which_has_a_folder_of_its_own(make, tmp_path, monkeypatch):
    make(save_steps=2, max_steps=4).train()
    told = []
    monkeypatch.setattr(transformers.trainer.logger, "warning", told.append)
    make(max_steps=4).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert not [line for line in told if "missing keys" in line]


def test_what_is_missing_of_the_policy_is_told_all_the_same(make, monkeypatch):
    told = []
    monkeypatch.setattr(transformers.trainer.logger, "warning", told.append)
    load_result = make().model.load_state_dict({}, strict=False)
    make()._issue_warnings_after_load(load_result)
    assert "model.embed_tokens.weight" in told[0]
    assert "critic." not in told[0]


def test_the_best_model_has_the_critic_of_its_own_checkpoint(make, tmp_path):
    trainer = make(save_steps=2, max_steps=4)
    trainer.train()
    last = plain(trainer.critic.state_dict())
    trainer.state.best_model_checkpoint = str(tmp_path / "out" / "checkpoint-2")
    trainer._load_best_model()
    resumed = make(max_steps=2, save_strategy="no")
    resumed.train()
    assert plain(dict(trainer.model.state_dict())) == plain(dict(resumed.model.state_dict()))
    assert plain(trainer.critic.state_dict()) != last


def test_a_checkpoint_at_a_boundary_holds_no_responses(make, tmp_path):
    make(save_steps=2, max_steps=4).train()
    assert torch.load(tmp_path / "out" / "checkpoint-2" / "in_flight_0.pt", weights_only=True)["rollout"] is None


def test_the_data_of_another_epoch_is_in_another_order(make):
    trainer = make()
    trainer._get_train_sampler()
    orders = []
    for epoch in (0, 1, 0):
        trainer.sampler.epoch = epoch
        orders.append(list(trainer.sampler))
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_the_prompts_column_is_all_that_a_run_needs(make):
    rows = Dataset.from_list([{"prompt": f"{n},{n},1>9\n"} for n in range(2, 10)])
    make(dataset=rows, save_strategy="no", max_steps=2, prompt_curriculum="skip").train()
