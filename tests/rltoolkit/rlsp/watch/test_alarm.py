"""When the hacking alarm rings, by worked numbers; its end-to-end tests have a file of their own."""

import json
import random
from pathlib import Path

import pytest

from rltoolkit.rlsp.watch.alarm import LEVEL, NAMED, HackingAlarm, Mean, Measurement, Suspect, compare


def saw(alarm, paid, *, count=256, suspects=()):
    """A rollout in which exploration paid `paid` on average, every response the same."""
    alarm.saw(count, count * paid, count * paid**2, suspects)


def judge(alarm, step, rate, count=500, name="task"):
    return alarm.judge(step, {name: Mean.of_share(rate, count)})


def history_of(*points, count=500):
    """Measurements from (held-out rate, exploration paid)."""
    return [
        Measurement(step, Mean.of_share(rate, count), None if paid is None else Mean.of_share(paid, 4000))
        for step, (rate, paid) in enumerate(points)
    ]


def test_standard_errors_come_from_the_counts():
    assert Mean.of_share(0.4, 500).error == pytest.approx(0.4 * 0.6 / 500, rel=0.01)
    assert Mean.of_share(1.0, 500).error == pytest.approx(1 / 500**2)  # not 0: the next one could have been wrong
    assert Mean.of(4, 2.0, 2.0) == Mean(0.5, (0.25 + 0.25) / 4)
    assert Mean.of(0, 0.0, 0.0) is Mean.of_share(None, 5) is Mean.of_share(float("nan"), 5) is None


@pytest.mark.parametrize(
    ("points", "before"),
    [
        ([(0.50, 0.2), (0.40, 0.4)], 0),
        ([(0.50, 0.2), (0.50, 0.4)], None),  # answers hold
        ([(0.50, 0.4), (0.40, 0.2)], None),  # worse in both
        ([(0.50, 0.2), (0.60, 0.4)], None),  # better in both
        ([(0.50, 0.2), (0.46, 0.4)], None),  # 1.3 standard errors
        ([(0.50, 0.2), (0.40, 0.205)], None),  # exploration has not moved
        ([(0.50, 0.2), (0.48, 0.3), (0.45, 0.4), (0.42, 0.5)], 0),  # no single step is beyond noise, the whole way is
        ([(0.30, 0.2), (0.50, 0.3), (0.40, 0.4)], 1),  # from the best it has been
        ([(0.50, 0.5), (0.30, 0.2), (0.32, 0.4)], None),  # it fell before exploration rose
        ([(0.50, None), (0.40, 0.4)], None),  # what exploration paid then is not known
        ([(0.50, 0.2), (0.40, None)], None),
        ([(0.50, 0.2)], None),
    ],
)
def test_it_compares_with_the_best_before(points, before):
    history = history_of(*points)
    assert compare(history) == (None if before is None else history[before])


def test_more_comparisons_ask_for_more():
    """0.50 -> 0.43 of 500 questions are 2.2 standard errors: enough for one comparison, not for one of ten rates."""
    history = history_of((0.50, 0.2), (0.43, 0.4))
    assert compare(history) is not None
    assert compare(history, series=10) is None


def test_chance_alone_rings_no_oftener_than_promised():
    """A policy of constant rate, while exploration rises: 400 runs of ten measurements of 200 questions."""
    rng = random.Random(0)
    runs, rang = 400, 0
    for _ in range(runs):
        rates = [sum(rng.random() < 0.4 for _ in range(200)) / 200 for _ in range(10)]
        history = history_of(*((rate, 0.1 * place) for place, rate in enumerate(rates)), count=200)
        rang += compare(history) is not None
    assert rang / runs <= LEVEL


def test_an_event_is_told_once_until_it_is_over():
    alarm = HackingAlarm()
    assert alarm.ringing is None
    told = []
    for step, (paid, rate) in enumerate([(0.2, 0.5), (0.5, 0.3), (0.6, 0.3), (0.6, 0.5), (0.7, 0.2)]):
        saw(alarm, paid)
        event = judge(alarm, step, rate)
        told.append((alarm.ringing, event is not None))
    assert told == [(None, False), (True, True), (True, False), (False, False), (True, True)]
    assert [(event.before.step, event.now.step) for event in alarm.events] == [(0, 1), (0, 4)]


def test_the_first_rollout_belongs_to_the_measurement_before_it():
    """Measured before training: what exploration was paid by that policy, the first rollout tells."""
    alarm = HackingAlarm()
    judge(alarm, 0, 0.5)
    saw(alarm, 0.2)
    saw(alarm, 0.9)
    saw(alarm, 0.9)
    event = judge(alarm, 8, 0.3)
    assert event.before.paid.value == pytest.approx(0.2)
    assert event.now.paid.value == pytest.approx(2.0 / 3)


def test_a_measurement_without_a_rollout_before_it_is_compared_with_what_was_paid_last():
    """Measured more often than there are rollouts: an event goes on, and one can begin."""
    alarm = HackingAlarm()
    saw(alarm, 0.2)
    judge(alarm, 8, 0.5)
    saw(alarm, 0.9, suspects=[Suspect(1.0, 8, 0, 3)])
    assert judge(alarm, 12, 0.5) is None
    event = judge(alarm, 16, 0.2)
    assert (event.before.step, event.now.step, event.now.paid.value) == (8, 16, pytest.approx(0.9))
    assert [suspect.row for suspect in event.suspects] == [3]
    assert judge(alarm, 20, 0.2) is None
    assert alarm.ringing
    saw(alarm, 0.9)
    assert judge(alarm, 24, 0.2) is None
    assert len(alarm.events) == 1


def test_rates_of_one_step_share_their_rollouts_and_make_one_event():
    alarm = HackingAlarm()
    for step, paid, rate in [(0, 0.2, 0.5), (8, 0.6, 0.3)]:
        saw(alarm, paid)
        events = [judge(alarm, step, rate, name=name) for name in ("first", "second")]
    assert [event is not None for event in events] == [True, False]
    assert alarm.ringing
    saw(alarm, 0.7)
    judge(alarm, 16, 0.5, name="first")
    assert alarm.ringing  # of the second it is not known better
    judge(alarm, 16, 0.5, name="second")
    assert alarm.ringing is False
    assert alarm.measurements == 3


def test_an_evaluation_in_which_nothing_could_be_scored_says_nothing():
    alarm = HackingAlarm()
    saw(alarm, 0.2)
    judge(alarm, 0, 0.5)
    saw(alarm, 0.6)
    assert alarm.judge(8, {"task": None}) is None
    assert alarm.ringing is None
    saw(alarm, 0.6)
    assert judge(alarm, 16, 0.3) is not None


def test_the_best_paid_wrong_answers_since_the_last_measurement_are_named():
    alarm = HackingAlarm(Path("samples"))
    saw(alarm, 0.2, suspects=[Suspect(1.0, 0, 0, 7)])
    judge(alarm, 8, 0.5)
    saw(alarm, 0.6, suspects=[Suspect(0.9, 8, 1, row) for row in range(NAMED)])
    saw(alarm, 0.6, suspects=[Suspect(0.9, 16, 0, 3), Suspect(0.95, 16, 1, 2), Suspect(0.1, 16, 0, 0)])
    event = judge(alarm, 24, 0.3)
    assert [(s.paid, s.step, s.rank, s.row) for s in event.suspects] == [
        (0.95, 16, 1, 2), (0.9, 16, 0, 3), (0.9, 8, 1, 0), (0.9, 8, 1, 1), (0.9, 8, 1, 2),
    ]  # fmt: skip
    assert "samples/step-000016-rank-1.parquet row 2 (paid 0.950), samples/step-000016-rank-0.parquet row 3" in (
        event.text(alarm.samples_dir)
    )
    assert "step 16, rank 1, row 2 (paid 0.950)" in event.text(None)
    assert "0.200 -> 0.600, while the held-out rate of task fell, 0.500 -> 0.300" in event.text(None)


def test_what_it_knows_survives_a_checkpoint():
    def half(alarm, steps):
        for step in steps:
            saw(alarm, 0.2 + step / 50, suspects=[Suspect(step / 50, step, 0, 1)])
            if step % 4 == 0:
                judge(alarm, step, 0.6 - step / 50)

    straight, first, second = HackingAlarm(), HackingAlarm(), HackingAlarm()
    half(straight, range(0, 20, 2))
    half(first, range(0, 8, 2))  # between two measurements
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    half(second, range(8, 20, 2))
    assert straight.events
    assert second.events == straight.events
    assert second.state_dict() == straight.state_dict()
    assert second.ringing == straight.ringing
