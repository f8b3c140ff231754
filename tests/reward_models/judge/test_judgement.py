"""Judgements and comparisons."""

import pytest

from reward_models import VerifierError
from reward_models.judge import JudgedPair, Judgement, JudgeOutcome


@pytest.mark.parametrize(("outcome", "value"), [(JudgeOutcome.OK, None), (JudgeOutcome.TIMEOUT, 0.5)])
def test_a_failure_is_never_a_number(outcome, value):
    with pytest.raises(VerifierError, match="expected a number for ok"):
        Judgement(outcome, value)


def preference(as_given: float | None, swapped: float | None) -> JudgedPair:
    return JudgedPair(
        *(
            Judgement(JudgeOutcome.TIMEOUT, None) if value is None else Judgement(JudgeOutcome.OK, value)
            for value in (as_given, swapped)
        )
    )


@pytest.mark.parametrize(
    ("as_given", "swapped", "probability", "bias"),
    [
        (1.0, 0.0, 1.0, 0.0),
        (0.0, 1.0, 0.0, 0.0),
        (1.0, 1.0, 0.5, 0.5),  # A both times
        (0.0, 0.0, 0.5, -0.5),
        (0.5, 0.5, 0.5, 0.0),
        (1.0, 0.5, 0.75, 0.25),
        (None, 0.0, None, None),
        (1.0, None, None, None),
    ],
)
def test_both_orders_count_the_same(as_given, swapped, probability, bias):
    asked = preference(as_given, swapped)
    assert (asked.probability, asked.position_bias) == (probability, bias)
    other_way_round = preference(swapped, as_given)
    assert other_way_round.probability == (None if probability is None else 1 - probability)
