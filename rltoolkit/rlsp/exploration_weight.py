"""How much the exploration stream counts beside the correctness stream: fixed, on a schedule, or under a constraint.

The constraint is that exploration may be sought as long as the verifier's rate J_C holds a floor c:

    max over the policy of J_E   subject to   J_C >= c
    L(policy, mu) = J_E + mu (J_C - c),   mu >= 0

For a given multiplier the policy climbs L, and so does one that climbs L / mu = w J_E + J_C - c with w = 1 / mu. The
multiplier goes the other way: dL / dmu = J_C - c, so mu falls while the floor holds and rises while it does not. The
step is taken in log mu, which keeps mu > 0 and makes doubling as easy as halving (a mirror step of dual descent):

    log mu <- log mu - step (J_C - c),   that is   w <- w exp(step (J_C - c)), clipped to [w_min, w_max]

J_C is measured by the rate of a rollout, smoothed over rollouts; the bounds keep a long time on one side of the floor
from having to be undone. c is a rate of its own (`floor`) or a share of the best smoothed rate so far (`best`).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from reward_models.errors import VerifierError
from rltoolkit.errors import ModelError
from rltoolkit.rlsp.config import RLSPConfig

__all__ = ["ExplorationWeight", "WeightState", "after_rollout", "floor_of"]

LARGEST_STEP = 700.0
"""In log w, in one rollout. exp of more is no float; the bounds of w lie far within."""

NEAR = 1e-6
"""How far outside [0, 1] an outcome may lie as a rounded sum of parts."""


@dataclass(frozen=True)
class WeightState:
    """What the control remembers between rollouts; rates are None before the first rollout that could be judged."""

    weight: float
    smoothed_rate: float | None = None
    best_rate: float | None = None


def floor_of(state: WeightState, config: RLSPConfig) -> float | None:
    """The rate that the verifier must reach for exploration to gain weight; None where nothing asks for one yet."""
    if config.outcome_floor is None or not _reads_rates(config):
        return None
    if config.exploration_control == "floor":
        return config.outcome_floor
    return None if state.best_rate is None else config.outcome_floor * state.best_rate


def after_rollout(
    state: WeightState, rate: float | None, config: RLSPConfig, *, progress: float, learning: bool
) -> WeightState:
    """The state with which a rollout of this verifier rate is learned from.

    `rate` is None where no response could be judged: nothing is known then, and nothing moves. `progress` goes from 0
    in the first rollout of the training to 1 in the last. While the policy is not `learning` (the critic's warm-up)
    the rate is followed, but the weight waits: the policy could not have answered to it. Without a constraint the
    weight is the config's, also where a checkpoint had another.
    """
    if config.exploration_control == "constant":
        state = replace(state, weight=config.exploration_weight)
    if config.exploration_control == "linear":
        way = config.exploration_weight_end - config.exploration_weight
        state = replace(state, weight=config.exploration_weight + way * min(1.0, progress))
    if rate is None:
        return state
    before = rate if state.smoothed_rate is None else state.smoothed_rate
    smoothed = before + (1 - config.outcome_rate_decay) * (rate - before)
    best = smoothed if state.best_rate is None else max(state.best_rate, smoothed)
    state = replace(state, smoothed_rate=smoothed, best_rate=best)
    floor = floor_of(state, config)
    if floor is None or not learning:
        return state
    weight = state.weight * math.exp(min(LARGEST_STEP, config.exploration_weight_step * (smoothed - floor)))
    return replace(state, weight=min(max(weight, config.exploration_weight_min), config.exploration_weight_max))


def _reads_rates(config: RLSPConfig) -> bool:
    return config.exploration_control in ("floor", "best")


class ExplorationWeight:
    """The control as a part of the trainer: the same on every rank, and remembered in checkpoints."""

    def __init__(self, config: RLSPConfig) -> None:
        self._config = config
        self._state = WeightState(config.exploration_weight)

    @property
    def weight(self) -> float:
        """What the exploration stream counts now."""
        return self._state.weight

    def observe(self, rate: float | None, *, progress: float, learning: bool) -> None:
        """Take note of a rollout, before it is learned from; see `after_rollout`."""
        self._state = after_rollout(self._state, rate, self._config, progress=progress, learning=learning)

    def require_rates(self, outcome: Tensor, gather: Callable[[Tensor], Tensor], name: str) -> None:
        """Raise VerifierError, on every rank, where a floor is set for a reward `name` whose outcomes are no rates.

        outcome (B,) of this process, NaN where there is none; `gather` brings those of all ranks together.
        """
        if not _reads_rates(self._config):
            return
        outcomes = gather(outcome)
        wrong = outcomes[(outcomes < -NEAR) | (outcomes > 1 + NEAR)]
        if wrong.numel():
            control = self._config.exploration_control
            raise VerifierError(
                f"the outcome reward {name} gave {wrong.numel()} of {outcomes.numel()} responses a score outside "
                f"[0, 1], first {wrong[0].item():g}, and exploration_control {control!r} holds a floor for rates; give "
                "outcomes in [0, 1], or set exploration_control to constant or linear"
            )

    def metrics(self) -> dict[str, float]:
        """For the log; what is not known yet is left out."""
        found = {
            "advantage/exploration_weight": self._state.weight,
            "advantage/outcome_rate_smoothed": self._state.smoothed_rate,
            "advantage/outcome_floor": floor_of(self._state, self._config),
        }
        return {name: value for name, value in found.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; raises ModelError where it is none of this control."""
        try:
            self._state = WeightState(**state)
        except TypeError as error:
            raise ModelError(
                f"the state of the exploration weight in the checkpoint is {state!r}, which is not {WeightState}; "
                "start in a new folder"
            ) from error
