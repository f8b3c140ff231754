"""One policy for the samplers of all processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.ranks import awake, is_shared, sample_together, sync_together
from rltoolkit.rollout.transformers_backend import TransformersBackend

SCRIPT = Path(__file__).with_name("two_ranks.py")
ROOT = Path(__file__).parents[3]


class Recorder:
    def __init__(self, broken=()):
        self.calls, self.broken = [], broken

    def _call(self, name):
        self.calls.append(name)
        if name in self.broken:
            raise RolloutError(f"{name} failed")

    def wake(self):
        self._call("wake")

    def sleep(self):
        self._call("sleep")

    def sync(self, source, version):
        self._call(f"sync {version}")

    @property
    def shared_policy(self):
        raise AssertionError("one process has nobody to tell")

    def follow(self, policy):
        raise AssertionError("one process follows nobody")


def test_awake_is_followed_by_sleep():
    backend = Recorder()
    with awake(backend):
        assert backend.calls == ["wake"]
    assert backend.calls == ["wake", "sleep"]


def test_the_failure_inside_is_told_and_not_that_of_sleep():
    backend = Recorder(broken=("sleep",))
    with pytest.raises(ValueError, match="inside"), awake(backend):
        raise ValueError("inside")
    assert backend.calls == ["wake", "sleep"]


def test_a_failing_sleep_is_told():
    with pytest.raises(RolloutError, match="sleep failed"), awake(Recorder(broken=("sleep",))):
        pass


def test_a_failing_wake_is_not_followed_by_sleep():
    backend = Recorder(broken=("wake",))
    with pytest.raises(RolloutError, match="wake failed"), awake(backend):
        raise AssertionError("not reached")
    assert backend.calls == ["wake"]


def test_one_process_syncs_and_tells_nobody():
    backend = Recorder()
    sync_together(backend, "folder", 3)
    assert backend.calls == ["sync 3"]


def test_one_process_gets_the_error_as_it_is():
    with pytest.raises(RolloutError, match=r"^sync 3 failed$"):
        sync_together(Recorder(broken=("sync 3",)), "folder", 3)


def test_servers_are_shared_and_a_module_in_memory_is_not():
    assert is_shared(Recorder())
    assert not is_shared(object.__new__(TransformersBackend))


def test_one_process_wakes_syncs_samples_and_sleeps():
    backend = Recorder()
    assert sample_together(backend, "folder", 3, lambda: [backend.calls[:]]) == [["wake", "sync 3"]]
    assert backend.calls == ["wake", "sync 3", "sleep"]
    with pytest.raises(ValueError, match="mine"):
        sample_together(backend, "folder", 4, lambda: raise_(ValueError("mine")))
    assert backend.calls[3:] == ["wake", "sync 4", "sleep"]


def raise_(error):
    raise error


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder)], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_one_process_syncs_and_the_other_follows(reports):
    main, other = reports
    assert main["processes"] == 2
    assert main["shared"] == {"calls": ["wake", "sync folder 1", "sleep"], "error": None}
    assert other["shared"] == {"calls": ["wake", "follow sync folder 1", "sleep"], "error": None}


@pytest.mark.slow
def test_each_process_syncs_a_sampler_of_its_own(reports):
    assert [report["own"]["calls"] for report in reports] == [["wake", "sync folder 2", "sleep"]] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scene", "process", "reason", "causes"),
    [
        ("refused", 0, "version 3 of the policy to its sampler: all servers are down", ["RolloutError", "NoneType"]),
        ("disk", 0, "version 4 of the policy to its sampler: OSError: no space left", ["OSError", "NoneType"]),
        ("follower", 1, "version 5 of the policy to its sampler: no route", ["NoneType", "RolloutError"]),
    ],
)
def test_a_failure_of_one_process_reaches_both_and_leaves_both_asleep(reports, scene, process, reason, causes):
    seen = [report[scene] for report in reports]
    assert seen[0]["error"] == seen[1]["error"]
    assert seen[0]["error"] == f"process {process} could not give {reason}"
    assert [one["cause"] for one in seen] == causes
    assert {one["calls"][-1] for one in seen} == {"sleep"}


@pytest.mark.slow
def test_a_rollout_of_two_processes(reports):
    for report, synced in zip(reports, ("sync folder 10", "follow sync folder 10"), strict=True):
        assert report["rollout"]["calls"] == ["wake", synced, "generate", "sleep"]
        assert report["rollout"]["samples"] == [["wake", synced, "generate"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scene", "message", "causes"),
    [
        ("first fails", "process 0 could not sample from version 11 of the policy: no generate", [True, False]),
        ("second fails", "process 1 could not sample from version 12 of the policy: no generate", [False, True]),
        ("no wake", "process 1 could not wake its sampler: no wake", [False, True]),
        ("no sleep", "process 0 could not sample from version 14 of the policy: no sleep", [True, False]),
        (
            "no own sync",
            "process 1 could not sample from version 15 of the policy: OSError: no space left",
            [False, True],
        ),
        ("no sync", "process 0 could not give version 16 of the policy to its sampler: all are down", [True, False]),
    ],
)
def test_a_rollout_that_fails_on_one_process_fails_on_both(reports, scene, message, causes):
    seen = [report[scene] for report in reports]
    assert [one["error"] for one in seen] == [message, message]
    assert [one["cause"] != "NoneType" for one in seen] == causes
    woken = [one for one in seen if one["calls"] != ["wake"] or "wake" not in scene]
    assert {one["calls"][-1] for one in woken} == {"sleep"}


@pytest.mark.slow
def test_the_main_process_samples_alone_while_the_other_waits(reports):
    assert reports[0]["alone"]["calls"] == ["wake", "sync folder 9", "sleep"]
    assert reports[1]["alone"]["calls"] == []
    assert reports[1]["alone"]["result"] == reports[0]["alone"]["calls"]


@pytest.mark.slow
def test_what_fails_on_the_main_process_alone_is_told_to_both(reports):
    told = "process 0 could not evaluate: ZeroDivisionError: integer division or modulo by zero"
    assert [report["alone fails"] for report in reports] == [
        {"error": told, "cause": "ZeroDivisionError"},
        {"error": told, "cause": "NoneType"},
    ]


@pytest.mark.slow
def test_the_processes_are_in_step_after_failures(reports):
    assert [report["in_step"] for report in reports] == [[0, 1], [0, 1]]
    assert reports[1]["after"]["calls"] == ["wake", "follow sync folder 6", "sleep"]
