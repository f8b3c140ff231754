"""Which options of decoupled advantages contradict each other, or would do nothing without a word."""

from dataclasses import fields
from numbers import Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rltoolkit.rlsp.config import RLSPConfig

__all__ = ["ADVANTAGES", "CONTROLS", "stream_problems"]

ADVANTAGES = ("single", "decoupled")
_OF_STREAMS = (
    "exploration_gamma",
    "exploration_gae_lambda",
    "normalize_streams",
    "exploration_control",
    "exploration_weight",
)
# what each way to weight the exploration stream reads beside `exploration_weight`
_CONSTRAINT = (
    "outcome_floor",
    "outcome_rate_decay",
    "exploration_weight_step",
    "exploration_weight_min",
    "exploration_weight_max",
)
_OF_CONTROL: dict[str, tuple[str, ...]] = {
    "constant": (),
    "linear": ("exploration_weight_end",),
    "floor": _CONSTRAINT,
    "best": _CONSTRAINT,
}
CONTROLS = tuple(_OF_CONTROL)


def stream_problems(config: "RLSPConfig") -> list[str]:
    """What is wrong with a config's options of decoupled advantages, one sentence each.

    Nothing of what depends on a choice that is not known: it was meant to be another one.
    """
    if config.advantage not in ADVANTAGES:
        return []
    defaults = {field.name: field.default for field in fields(config)}
    read = _OF_STREAMS + _OF_CONTROL.get(config.exploration_control, ())
    decoupled = config.advantage == "decoupled"
    problems = []
    for name in (*_OF_STREAMS, "exploration_weight_end", *_CONSTRAINT):
        value = getattr(config, name)
        if value != defaults[name] and not decoupled:
            where = f"advantage {config.advantage!r}"
            problems.append(f"{name} is {value!r} with {where}, where it has no effect; remove it")
        elif value != defaults[name] and name not in read and config.exploration_control in CONTROLS:
            where = f"exploration_control {config.exploration_control!r}"
            problems.append(f"{name} is {value!r} with {where}, where it has no effect; remove it")
    if not decoupled:
        return problems
    if config.paper_compat:
        problems.append(
            "paper_compat is true with advantage 'decoupled', and the released reward cannot be told apart into "
            "streams; set one of the two differently"
        )
    if config.alpha in (0, 1):
        problems.append(f"alpha is {config.alpha!r} with advantage 'decoupled'; give a number > 0 and < 1")
    if "outcome_floor" in read and config.outcome_floor is None:
        problems.append(
            f"outcome_floor is missing with exploration_control {config.exploration_control!r}; give a number > 0 and "
            "<= 1"
        )
    low, weight, high = config.exploration_weight_min, config.exploration_weight, config.exploration_weight_max
    numbers = all(isinstance(bound, Real) for bound in (low, weight, high))
    if "outcome_floor" in read and numbers and (weight < low or weight > high):
        problems.append(
            f"exploration_weight is {weight!r}, outside exploration_weight_min {low!r} and exploration_weight_max "
            f"{high!r}; choose it between them"
        )
    return problems
