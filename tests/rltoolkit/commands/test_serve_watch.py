"""How `rltoolkit serve` counts deaths and restarts, on a fleet and a clock that the test moves."""

from types import SimpleNamespace

import pytest

from rltoolkit.commands import serve as serve_module
from rltoolkit.commands.serve import MOST_RESTARTS, START_AGAIN_S, STEADY_S, TELL_EVERY_S, _Watch
from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers.launch import ServerState

HEALTHY, LOADING, DEAD, HUNG, LATE = (ServerState[name] for name in ("HEALTHY", "LOADING", "DEAD", "HUNG", "LATE"))


class Fleet:
    """Servers whose states the test sets; `plan` moves on at each look, `busy` are servers whose port is taken."""

    def __init__(self, count: int, plan, clock) -> None:
        self.urls = tuple(f"http://s:{index}" for index in range(count))
        self.states = [LOADING] * count
        self.plan, self.clock = iter(plan), clock
        self.busy: set[int] = set()
        self.events: list[tuple[str, int]] = []

    def look(self):
        return tuple(self.states)

    def epitaph(self, index, state):
        return f"{self.urls[index]} is {state}"

    def end(self, index):
        self.events.append(("end", index))
        self.states[index] = DEAD

    def restart(self, index):
        self.states[index] = DEAD
        if index in self.busy:
            raise RolloutError("port taken")
        self.events.append(("restart", index))
        self.states[index] = LOADING

    def wait(self, _seconds) -> bool:
        """What happens between two looks: (seconds, changes of states); the end is a signal to stop."""
        seconds, changes = next(self.plan, (None, None))
        if seconds is None:
            return True
        self.clock[0] += seconds
        if callable(changes):
            changes(self)
        else:
            for index, state in changes.items():
                self.states[index] = state
        return False

    def restarts_of(self, index: int) -> int:
        return self.events.count(("restart", index))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch):
    """A function that watches `count` servers through a plan; (the fleet, the exit code, what was said)."""
    clock = [0.0]
    monkeypatch.setattr(serve_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def watch(count: int, plan):
        fleet, said = Fleet(count, plan, clock), []
        stop = SimpleNamespace(event=SimpleNamespace(wait=fleet.wait), caught=None)
        code = _Watch(fleet, stop, said.append, "rltoolkit train r.yaml").run()
        return fleet, code, said

    return watch


def up(count: int):
    return (1.0, dict.fromkeys(range(count), HEALTHY))


def deaths(index: int, times: int, state=DEAD, steady: float = 1.0):
    """Die, come back, and stay up for a while, again and again."""
    return [step for _ in range(times) for step in ((steady, {index: state}), (1.0, {index: HEALTHY}))]


@pytest.mark.parametrize("state", [DEAD, HUNG, LATE])
def test_a_lost_server_is_told_of_and_started_again(watched, capsys, state) -> None:
    fleet, code, said = watched(2, [up(2), *deaths(1, 1, state)])
    assert (code, fleet.events) == (0, [("restart", 1)])
    assert said.count("restarting http://s:1 (1 of at most 5 times)") == 1
    assert said[-1] == "healthy: http://s:1"
    assert capsys.readouterr().err == f"rltoolkit serve: http://s:1 is {state}\n"


def test_deaths_of_one_server_are_not_counted_against_the_others(watched, capsys) -> None:
    plan = [up(2), *deaths(0, MOST_RESTARTS), *deaths(1, MOST_RESTARTS)]
    fleet, code, _ = watched(2, plan)
    assert (code, fleet.restarts_of(0), fleet.restarts_of(1)) == (0, MOST_RESTARTS, MOST_RESTARTS)
    assert "giving up" not in capsys.readouterr().err


def test_who_dies_too_often_is_given_up_alone(watched, capsys) -> None:
    plan = [up(2), *deaths(0, MOST_RESTARTS), (1.0, {0: DEAD}), *[(TELL_EVERY_S, {})] * 3, *deaths(1, 1)]
    fleet, code, said = watched(2, plan)
    assert (code, fleet.restarts_of(0), fleet.restarts_of(1)) == (0, MOST_RESTARTS, 1)
    assert ("end", 0) in fleet.events
    error = capsys.readouterr().err
    assert error.count("http://s:0 is dead") == MOST_RESTARTS + 1
    assert (
        "giving up http://s:0 after 5 restarts; mend what its log says, and serve again (1 of 2 servers left)" in error
    )
    assert len([line for line in said if line == "loading: http://s:0"]) <= 1  # none in the thirty seconds after it


def test_it_ends_when_no_server_is_left(watched) -> None:
    plan = [up(2), *deaths(0, MOST_RESTARTS), *deaths(1, MOST_RESTARTS), (1.0, {0: DEAD}), (1.0, {1: DEAD}), (1.0, {})]
    fleet, code, _ = watched(2, plan)
    assert code == 1
    assert len(list(fleet.plan)) == 1  # at once


@pytest.mark.parametrize(("steady", "code"), [(STEADY_S, 0), (STEADY_S - 2, 1)])
def test_the_count_starts_anew_after_steady_work(watched, steady, code) -> None:
    plan = [up(1), *deaths(0, MOST_RESTARTS), (steady, {0: DEAD}), (1.0, {0: HEALTHY}), *deaths(0, MOST_RESTARTS - 1)]
    fleet, found, _ = watched(1, plan)
    assert found == code
    assert fleet.restarts_of(0) == (2 * MOST_RESTARTS if code == 0 else MOST_RESTARTS)


def test_time_spent_loading_is_not_steady_work(watched) -> None:
    plan = [up(1), *[step for _ in range(MOST_RESTARTS + 1) for step in ((1.0, {0: DEAD}), (STEADY_S, {0: LOADING}))]]
    _, code, _ = watched(1, plan)
    assert code == 1


def test_a_port_that_is_not_free_yet_is_tried_again(watched, capsys) -> None:
    plan = [
        up(2),
        (1.0, lambda fleet: (fleet.busy.add(0), fleet.states.__setitem__(0, DEAD))),
        *[(1.0, {})] * 20,
        (1.0, lambda fleet: fleet.busy.clear()),
        (1.0, {0: HEALTHY}),
    ]
    fleet, code, said = watched(2, plan)
    assert (code, fleet.events) == (0, [("restart", 0)])
    assert said.count("restarting http://s:0 (1 of at most 5 times)") == 1
    assert capsys.readouterr().err.count("port taken; trying again for 120 s") == 1


def test_a_port_that_stays_taken_costs_one_server(watched, capsys) -> None:
    plan = [
        up(2),
        (1.0, lambda fleet: (fleet.busy.add(0), fleet.states.__setitem__(0, DEAD))),
        *[(START_AGAIN_S / 4, {})] * 6,
        (1.0, {1: DEAD}),
    ]
    fleet, code, _ = watched(2, plan)
    assert (code, fleet.events) == (0, [("end", 0), ("restart", 1)])
    assert "giving up http://s:0: port taken; mend" in capsys.readouterr().err


@pytest.mark.parametrize("state", [DEAD, LATE, HUNG])
def test_a_server_lost_before_all_were_ready_is_an_error(watched, state) -> None:
    with pytest.raises(RolloutError, match=f"http://s:1 is {state}"):
        watched(2, [(1.0, {0: HEALTHY}), (1.0, {1: state})])


def test_those_that_load_are_named_every_ten_seconds(watched) -> None:
    _, _, said = watched(2, [(6.0, {0: HEALTHY}), *[(6.0, {})] * 3, (1.0, {1: HEALTHY})])
    assert [line.splitlines()[0] for line in said] == [
        "healthy: http://s:0",
        "loading: http://s:1",
        "loading: http://s:1",
        "healthy: http://s:1",
        "ready; in another terminal:",
    ]
