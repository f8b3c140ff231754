"""The weight of the exploration stream: what each control does with a rollout's outcome rate, and what it remembers."""

import json
import math

import pytest
import torch

from reward_models.errors import VerifierError
from rltoolkit.errors import ModelError
from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.exploration_weight import ExplorationWeight, WeightState, after_rollout, floor_of


@pytest.fixture
def config(tmp_path):
    def make(control, **options):
        cpu = {"use_cpu": True, "bf16": False, "report_to": [], "per_device_train_batch_size": 4}
        return RLSPConfig(str(tmp_path), **cpu, advantage="decoupled", exploration_control=control, **options)

    return make


def followed(config, rates, *, learning=True):
    """The states after each rate in turn."""
    states, state = [], WeightState(config.exploration_weight)
    for index, rate in enumerate(rates):
        state = after_rollout(state, rate, config, progress=index / len(rates), learning=learning)
        states.append(state)
    return states


def weights(states):
    return [state.weight for state in states]


def test_constant_stays_whatever_the_rate(config):
    states = followed(config("constant", exploration_weight=0.7), [0.9, 0.0, None])
    assert weights(states) == [0.7, 0.7, 0.7]
    assert [state.smoothed_rate for state in states] == pytest.approx([0.9, 0.72, 0.72])  # followed for the log


def test_linear_goes_from_start_to_end_over_the_training(config):
    linear = config("linear", exploration_weight=2.0, exploration_weight_end=0.5)
    assert weights(followed(linear, [None, 0.1, 0.9, 0.5])) == [2.0, 1.625, 1.25, 0.875]
    late = after_rollout(WeightState(2.0), 0.5, linear, progress=1.0, learning=False)
    assert late.weight == 0.5
    assert after_rollout(late, 0.5, linear, progress=1.2, learning=True).weight == 0.5


def test_the_floor_in_worked_numbers(config):
    floor = config("floor", outcome_floor=0.5, exploration_weight_step=2.0, outcome_rate_decay=0.5)
    states = followed(floor, [0.6, 0.4, 0.2])
    assert [state.smoothed_rate for state in states] == pytest.approx([0.6, 0.5, 0.35])
    # log w gains 2 * (0.1, 0, -0.15)
    assert [math.log(weight) for weight in weights(states)] == pytest.approx([0.2, 0.2, -0.1])


def test_the_share_of_the_best_in_worked_numbers(config):
    options = {"exploration_weight_step": 10.0, "outcome_rate_decay": 0.0, "exploration_weight_max": 9.0}
    best = config("best", outcome_floor=0.9, **options)
    states = followed(best, [0.5, 0.6, 0.5])
    assert [floor_of(state, best) for state in states] == pytest.approx([0.45, 0.54, 0.54])
    # log w gains 10 * (0.05, 0.06, -0.04)
    assert [math.log(weight) for weight in weights(states)] == pytest.approx([0.5, 1.1, 0.7])


@pytest.mark.parametrize("control", ["floor", "best"])
def test_rising_while_the_rate_holds_and_falling_while_it_fails(config, control):
    held = weights(followed(config(control, outcome_floor=0.5), [0.6] * 30))
    assert held == sorted(held)
    assert held[0] > 1
    assert held[-1] == 2.0  # the highest
    failed = followed(config(control, outcome_floor=0.5), [0.6] * 5 + [0.1] * 30)
    assert weights(failed)[-1] == 0.1  # the lowest
    assert weights(failed)[10:] == sorted(weights(failed)[10:], reverse=True)


def test_a_bound_does_not_have_to_be_undone(config):
    """After ever so long at the upper bound, the first rollouts below the floor lower the weight at once."""
    floor = config("floor", outcome_floor=0.5, outcome_rate_decay=0.0)
    states = followed(floor, [0.9] * 1000 + [0.4])
    assert weights(states)[-2:] == pytest.approx([2.0, 2.0 * math.exp(-1.0)])


def test_the_multiplier_settles_where_the_floor_just_holds(config):
    """A policy whose outcome rate falls with the weight: the control finds the largest weight that keeps the floor."""
    floor = config("floor", outcome_floor=0.5, exploration_weight_min=0.01, exploration_weight_max=100.0)
    state = WeightState(floor.exploration_weight)
    for _ in range(300):
        rate = 0.8 - 0.1 * state.weight
        state = after_rollout(state, rate, floor, progress=0.0, learning=True)
    assert state.weight == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("control", ["floor", "best"])
def test_a_rollout_that_could_not_be_judged_moves_nothing(config, control):
    options = config(control, outcome_floor=0.5)
    assert after_rollout(WeightState(1.0), None, options, progress=0.5, learning=True) == WeightState(1.0)
    known = WeightState(1.5, smoothed_rate=0.4, best_rate=0.6)
    assert after_rollout(known, None, options, progress=0.5, learning=True) == known


def test_the_weight_waits_while_only_the_critic_learns(config):
    states = followed(config("best", outcome_floor=0.9), [0.5, 0.7], learning=False)
    assert weights(states) == [1.0, 1.0]
    assert states[-1].best_rate == states[-1].smoothed_rate == pytest.approx(0.54)


def test_a_checkpoint_goes_on_exactly(config):
    options = config("best", outcome_floor=0.95)
    rates = [0.31, 0.37, 0.29, None, 0.41, 0.2]

    def observe(control, some):
        for rate in some:
            control.observe(rate, progress=0.0, learning=True)
        return control

    whole, first, second = (ExplorationWeight(options) for _ in range(3))
    observe(whole, rates)
    second.load_state_dict(json.loads(json.dumps(observe(first, rates[:3]).state_dict())))
    observe(second, rates[3:])
    assert second.state_dict() == whole.state_dict()  # to the bit
    assert second.weight != first.weight != 1.0
    assert second.metrics() == whole.metrics()


def test_a_constant_weight_is_the_configs_also_after_a_checkpoint(config):
    control = ExplorationWeight(config("constant", exploration_weight=0.5))
    control.load_state_dict({"weight": 1.0, "smoothed_rate": 0.4, "best_rate": 0.6})
    control.observe(None, progress=0.5, learning=True)
    assert control.weight == 0.5
    assert control.state_dict()["best_rate"] == 0.6


@pytest.mark.parametrize(("rate", "bound"), [(1.0, 2.0), (0.0, 0.1)])
def test_a_step_that_no_float_could_hold_ends_at_the_bound(config, rate, bound):
    floor = config("floor", outcome_floor=0.05, exploration_weight_step=1e9)
    assert weights(followed(floor, [rate, rate])) == [bound, bound]


@pytest.mark.parametrize("control", ["floor", "best"])
@pytest.mark.parametrize("wrong", [1.5, -0.2])
def test_a_floor_is_for_rates(config, control, wrong):
    """Ranks see each other's outcomes, so that one that is no rate ends all of them."""
    options = config(control, outcome_floor=0.5)
    others = torch.tensor([0.3, wrong, math.nan])

    def gather(own):
        return torch.cat([own, others])

    with pytest.raises(VerifierError, match=rf"outcome reward judge gave 1 of 5 .* first {wrong}, .*{control}"):
        ExplorationWeight(options).require_rates(torch.tensor([1.0, 0.0]), gather, "judge")
    ExplorationWeight(config("constant")).require_rates(others, gather, "judge")
    rounded = torch.tensor([1.0000001, -1e-7, math.nan])  # sums of parts
    ExplorationWeight(options).require_rates(rounded, lambda own: own, "judge")


def test_a_foreign_state_is_refused(config):
    with pytest.raises(ModelError, match="state of the exploration weight in the checkpoint is"):
        ExplorationWeight(config("constant")).load_state_dict({"mu": 3})


def test_what_is_logged(config):
    control = ExplorationWeight(config("floor", outcome_floor=0.4, exploration_weight_step=1.0))
    assert control.metrics() == {"advantage/exploration_weight": 1.0, "advantage/outcome_floor": 0.4}
    control.observe(0.4, progress=0.0, learning=True)
    assert control.metrics()["advantage/outcome_rate_smoothed"] == 0.4
    assert "advantage/outcome_floor" not in ExplorationWeight(config("constant")).metrics()


WRONG = [
    ({"exploration_control": "best"}, "outcome_floor is missing with exploration_control 'best'"),
    ({"exploration_control": "floor"}, "outcome_floor is missing with exploration_control 'floor'"),
    ({"exploration_control": "cosine"}, "exploration_control is 'cosine'; give one of constant, linear, floor, best"),
    ({"exploration_control": "floor", "outcome_floor": 1.5}, "outcome_floor is 1.5; give a number > 0 and <= 1"),
    ({"outcome_floor": 0.5}, "outcome_floor is 0.5 with exploration_control 'constant', where it has no effect"),
    ({"exploration_weight_end": 0.5}, "exploration_weight_end is 0.5 with exploration_control 'constant'"),
    (
        {"exploration_control": "linear", "exploration_weight_max": 9.0},
        "exploration_weight_max is 9.0 with exploration_control 'linear'",
    ),
    (
        {"exploration_control": "best", "outcome_floor": 0.9, "exploration_weight": 3.0},
        "exploration_weight is 3.0, outside exploration_weight_min 0.1 and exploration_weight_max 2.0",
    ),
    (
        {"exploration_control": "best", "outcome_floor": 0.9, "exploration_weight_min": None},
        "exploration_weight_min is None; give a number > 0",
    ),
    ({"exploration_weight": float("nan")}, "exploration_weight is nan; give a number >= 0"),
    ({"paper_compat": True}, "paper_compat is true with advantage 'decoupled'"),
    ({"alpha": 1.0}, "alpha is 1.0 with advantage 'decoupled'; give a number > 0 and < 1"),
    ({"exploration_gamma": 1.2}, "exploration_gamma is 1.2; give a number >= 0 and <= 1"),
    ({"advantage": "single", "exploration_weight": 2.0}, "exploration_weight is 2.0 with advantage 'single'"),
    ({"advantage": "single", "normalize_streams": False}, "normalize_streams is False with advantage 'single'"),
    ({"advantage": "single", "outcome_floor": 0.4}, "outcome_floor is 0.4 with advantage 'single'"),
    ({"advantage": "triple"}, "advantage is 'triple'; give one of single, decoupled"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[message.split(";")[0] for _, message in WRONG])
def test_what_the_config_refuses(tmp_path, options, message):
    cpu = {"use_cpu": True, "bf16": False, "report_to": [], "per_device_train_batch_size": 4}
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below, without being a pattern
        RLSPConfig(str(tmp_path), **cpu, **{"advantage": "decoupled", **options})
    assert message in str(caught.value)


def test_streams_are_counted(config, tmp_path):
    assert config("constant").streams == 2
    assert RLSPConfig(str(tmp_path), use_cpu=True, bf16=False, per_device_train_batch_size=4).streams == 1
