"""Server processes: how they are started, that they are seen to die, and that nothing of them stays."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.servers import launch
from rltoolkit.rollout.servers.launch import ServerFleet, ServerState, is_loopback, log_end
from rltoolkit.rollout.servers.launch_options import LaunchOptions, server_command, server_environment

# Stands in for an interpreter with vLLM: takes its flags, has a child that ignores SIGTERM, and answers /health.
FAKE = """\
#!{python} -S
import http.server, os, signal, subprocess, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
child = subprocess.Popen([sys.executable, "-S", "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('engine ready', flush=True); "
    "time.sleep(300)"], stdout=subprocess.PIPE)
child.stdout.readline()
print("engine", child.pid, flush=True)
{behaviour}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *arguments):
        pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def ports():
    """Two ports that are free now."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture
def fake(tmp_path: Path):
    def write(behaviour: str = "") -> str:
        path = tmp_path / "python"
        path.write_text(FAKE.format(python=sys.executable, behaviour=behaviour))
        path.chmod(0o755)
        return str(path)

    return write


def options(tmp_path: Path, python: str = "python", ports=(8311,), **changes) -> LaunchOptions:
    return LaunchOptions(model="m", python=python, ports=tuple(ports), log_dir=tmp_path / "logs", **changes)


def wait_for(happened, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.02)
    return False


def is_gone(pid: int) -> bool:
    """Whether a process is gone, or dead and waiting for whoever reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def engine_of(fleet: ServerFleet, index: int) -> int:
    """The child that a fake server named last."""
    lines = fleet.options.log_of(index).read_text().splitlines()
    return int([line.split()[1] for line in lines if line.startswith("engine ")][-1])


# --- what is started ---------------------------------------------------------------------------------------


def flag(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_the_command_fixes_what_samples_are_scored_with(tmp_path: Path) -> None:
    command = server_command(options(tmp_path, engine=EngineOptions(dtype="float32")), 0)
    assert command[:3] == ["python", "-m", "vllm.entrypoints.openai.api_server"]
    assert flag(command, "--generation-config") == "vllm"
    assert flag(command, "--logprobs-mode") == "processed_logprobs"
    assert flag(command, "--dtype") == "float32"
    assert (flag(command, "--host"), flag(command, "--port")) == ("127.0.0.1", "8311")
    assert flag(command, "--served-model-name") == "policy"
    assert flag(command, "--allowed-origins") == "[]"
    assert "--no-enable-chunked-prefill" in command  # on a CPU a prompt cut into pieces ends a seeded engine
    assert not {"--enable-lora", "--enforce-eager", "--gpu-memory-utilization", "--max-model-len"} & set(command)


def test_the_command_follows_the_engine(tmp_path: Path) -> None:
    engine = EngineOptions(tensor_parallel=2, max_model_len=99, enforce_eager=True, lora_rank=9, args=("--seed", "3"))
    wanted = options(tmp_path, ports=(1, 2), devices=(4, 5, 6, 7), engine=engine)
    command = server_command(wanted, 1)
    assert flag(command, "--tensor-parallel-size") == "2"
    assert flag(command, "--gpu-memory-utilization") == "0.9"
    assert flag(command, "--max-model-len") == "99"
    assert flag(command, "--max-lora-rank") == "16"
    assert "--enforce-eager" in command
    assert "--no-enable-chunked-prefill" not in command
    assert command[-2:] == ["--seed", "3"]
    assert server_environment(wanted, 1, {})["CUDA_VISIBLE_DEVICES"] == "6,7"


def test_gpus_count_what_is_visible(tmp_path: Path) -> None:
    wanted = options(tmp_path, ports=(1, 2), devices=(0, 1))
    environ = {"CUDA_VISIBLE_DEVICES": "5, GPU-8d3f"}
    assert [server_environment(wanted, i, environ)["CUDA_VISIBLE_DEVICES"] for i in (0, 1)] == ["5", "GPU-8d3f"]
    with pytest.raises(RolloutError, match="CUDA_VISIBLE_DEVICES=5 shows 1; give numbers from 0 to 0"):
        server_environment(wanted, 1, {"CUDA_VISIBLE_DEVICES": "5"})


def test_the_environment_of_a_cpu_server(tmp_path: Path) -> None:
    environ = {"PYTHONPATH": "/mine", "HOME": "/root"}
    one = server_environment(options(tmp_path, engine=EngineOptions(cpu_cache_gib=3)), 0, environ)
    assert one["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert one["VLLM_SERVER_DEV_MODE"] == one["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == one["VLLM_NO_USAGE_STATS"] == "1"
    assert one["OMP_WAIT_POLICY"] == "PASSIVE"
    assert one["HOME"] == "/root"
    first, second = one["PYTHONPATH"].split(os.pathsep)
    assert (Path(first).name, second) == ("vllm_worker", "/mine")
    assert "VLLM_CPU_OMP_THREADS_BIND" not in one
    two = server_environment(options(tmp_path, ports=(1, 2)), 0, {})
    assert two["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert (
        server_environment(options(tmp_path, ports=(1, 2)), 0, {"VLLM_CPU_OMP_THREADS_BIND": "0|1"})[
            "VLLM_CPU_OMP_THREADS_BIND"
        ]
        == "0|1"
    )


def test_sockets_have_room_for_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, expected in [("/tmp", None), ("/tmp/" + 66 * "x", "/tmp")]:
        monkeypatch.setattr("tempfile.tempdir", folder)
        assert server_environment(options(tmp_path), 0, {}).get("VLLM_RPC_BASE_PATH") == expected
    assert server_environment(options(tmp_path), 0, {"VLLM_RPC_BASE_PATH": "/me"})["VLLM_RPC_BASE_PATH"] == "/me"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ports": ()}, "give one for each server"),
        ({"ports": (1, 1)}, "each once"),
        ({"ports": (70000,)}, "70000 is no port"),
        ({"ports": (1, 2), "devices": (0,)}, "1 GPUs for 2 servers with tensor_parallel 1; give 2 GPUs, or 1 ports"),
        ({"engine": EngineOptions(tensor_parallel=2)}, "without GPUs"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, changes: dict, says: str) -> None:
    with pytest.raises(RolloutError, match=says):
        options(tmp_path, **changes)


def test_which_addresses_are_private() -> None:
    assert [host for host in ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost") if not is_loopback(host)] == []
    assert [host for host in ("0.0.0.0", "::", "10.0.0.1", "gpu-7", "127.0.0.1.evil.org") if is_loopback(host)] == []


# --- how they live -----------------------------------------------------------------------------------------


def test_servers_start_and_end_with_all_their_children(tmp_path: Path, fake, ports) -> None:
    with ServerFleet(options(tmp_path, fake(), ports)) as fleet:
        fleet.wait_until_healthy()
        assert fleet.urls == tuple(f"http://127.0.0.1:{port}" for port in ports)
        assert fleet.look() == (ServerState.HEALTHY,) * 2
        pids = [process.pid for process in fleet.processes] + [engine_of(fleet, 0), engine_of(fleet, 1)]
        assert len({os.getpgid(process.pid) for process in fleet.processes} | {os.getpgid(0)}) == 3
        guard = fleet._guard.process
    assert wait_for(lambda: all(is_gone(pid) for pid in pids))
    assert guard.returncode == 0
    fleet.stop()


def test_a_killed_server_is_seen_and_its_children_end_with_the_restart(tmp_path: Path, fake, ports) -> None:
    with ServerFleet(options(tmp_path, fake(), ports)) as fleet:
        fleet.wait_until_healthy()
        engine, killed, other = engine_of(fleet, 0), fleet.processes[0].pid, fleet.processes[1].pid
        os.kill(killed, signal.SIGKILL)
        assert wait_for(lambda: fleet.look() == (ServerState.DEAD, ServerState.HEALTHY))
        assert not is_gone(engine)
        assert "ended by signal 9; the end of" in fleet.epitaph(0, ServerState.DEAD)
        fleet.restart(0)
        assert wait_for(lambda: is_gone(engine))
        fleet.wait_until_healthy()
        assert fleet.processes[0].pid != killed
        assert fleet.processes[1].pid == other


def test_a_server_that_hangs_is_seen_and_started_again(tmp_path: Path, fake, ports, monkeypatch) -> None:
    for name in ("HUNG_S", "HEALTH_S", "RESTART_GRACE_S"):
        monkeypatch.setattr(launch, name, 0.3)
    with ServerFleet(options(tmp_path, fake(), ports)) as fleet:
        fleet.wait_until_healthy()
        hung, engine, other = fleet.processes[0].pid, engine_of(fleet, 0), fleet.processes[1].pid
        os.kill(hung, signal.SIGSTOP)  # takes connections, and answers none
        assert wait_for(lambda: fleet.look() == (ServerState.HUNG, ServerState.HEALTHY))
        assert "was healthy, and has not said so any more for 0.3 s; the end of" in fleet.epitaph(0, ServerState.HUNG)
        with pytest.raises(RolloutError, match="has not said so any more"):
            fleet.wait_until_healthy()
        fleet.restart(0)
        assert wait_for(lambda: is_gone(hung) and is_gone(engine))
        fleet.wait_until_healthy()
        assert fleet.processes[1].pid == other


def test_when_a_server_hangs_and_when_it_is_only_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, answers = [0.0], [False]
    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(launch, "_answers", lambda host, port: answers[0])
    monkeypatch.setattr(launch, "_is_dead", lambda process: False)
    fleet = ServerFleet(options(tmp_path, start_timeout_s=400.0))
    fleet._servers = [launch._Server(SimpleNamespace(), started=0.0)]

    def look(seconds: float, answer: bool) -> str:
        now[0], answers[0] = now[0] + seconds, answer
        [state] = fleet.look()
        return str(state)

    assert [look(*step) for step in ((0, False), (399, False))] == ["loading"] * 2  # a first load takes its time
    assert look(1, True) == "healthy"
    assert [look(*step) for step in ((1, False), (119, False))] == ["loading"] * 2
    assert look(0, True) == "healthy"
    assert [look(*step) for step in ((1, False), (119, False), (2, False))] == ["loading", "loading", "hung"]
    assert look(1, True) == "healthy"
    assert look(9999, False) == "loading"  # nobody looked in between


def test_a_restart_that_finds_its_port_taken_can_be_tried_again(tmp_path: Path, fake, ports, monkeypatch) -> None:
    with ServerFleet(options(tmp_path, fake(), ports[:1])) as fleet:
        fleet.wait_until_healthy()
        first, real = fleet.processes[0].pid, launch._require_free

        def taken(host: str, port: int) -> None:
            raise RolloutError("taken")

        monkeypatch.setattr(launch, "_require_free", taken)
        with pytest.raises(RolloutError, match="taken"):
            fleet.restart(0)
        assert fleet.look() == (ServerState.DEAD,)
        signalled, send = [], launch._signal_group
        monkeypatch.setattr(
            launch, "_signal_group", lambda process, number: signalled.append(process.pid) or send(process, number)
        )
        monkeypatch.setattr(launch, "_require_free", real)
        fleet.restart(0)
        fleet.wait_until_healthy()
        assert first not in signalled  # it was waited for, so its id may be another group's
        assert fleet.processes[0].pid != first
        fleet.end(0)
        fleet.end(0)
        assert fleet.look() == (ServerState.DEAD,)


def test_children_of_a_server_that_died_end_with_the_fleet(tmp_path: Path, fake, ports) -> None:
    with ServerFleet(options(tmp_path, fake(), ports[:1])) as fleet:
        fleet.wait_until_healthy()
        engine = engine_of(fleet, 0)
        os.kill(fleet.processes[0].pid, signal.SIGKILL)
        assert wait_for(lambda: fleet.look() == (ServerState.DEAD,))
    assert wait_for(lambda: is_gone(engine))


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, fake, ports) -> None:
    python = fake("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    fleet = ServerFleet(options(tmp_path, python, ports[:1]))
    fleet.start()
    fleet.wait_until_healthy()
    process = fleet.processes[0]
    fleet.stop(grace_s=0.2)
    assert process.returncode == -signal.SIGKILL


def test_a_server_that_dies_while_loading_gives_its_last_words(tmp_path: Path, fake, ports) -> None:
    python = fake("print('no such architecture'); sys.exit(3)")
    with ServerFleet(options(tmp_path, python, ports[:1])) as fleet:
        with pytest.raises(RolloutError, match="ended with exit code 3 before it was healthy") as caught:
            fleet.wait_until_healthy()
        engine = engine_of(fleet, 0)
    assert "  no such architecture" in str(caught.value)
    assert wait_for(lambda: is_gone(engine))


def test_a_server_that_is_late_is_named(tmp_path: Path, fake, ports) -> None:
    python = fake("print('loading', flush=True); time.sleep(300)")
    fleet = ServerFleet(options(tmp_path, python, ports[:1], start_timeout_s=0.3))
    with fleet, pytest.raises(RolloutError, match=rf"{ports[0]} is not healthy after 0.3 s"):
        fleet.wait_until_healthy()


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path, fake, ports) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[1]))
        taken.listen()
        fleet = ServerFleet(options(tmp_path, fake(), ports))
        with pytest.raises(RolloutError, match=rf"port {ports[1]} \(Address already in use\); choose another"):
            fleet.start()
    assert fleet.processes == ()
    with pytest.raises(RolloutError, match="Cannot assign requested address"):
        ServerFleet(options(tmp_path, fake(), ports, host="192.0.2.1")).start()


def test_a_port_that_another_one_would_share_is_taken_too(tmp_path: Path, fake, ports) -> None:
    """vLLM opens its port for sharing: without the look before, two servers would answer in turn."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", ports[0]))
        taken.listen()
        with pytest.raises(RolloutError, match="Address already in use"):
            ServerFleet(options(tmp_path, fake(), ports)).start()


def test_no_such_interpreter(tmp_path: Path, ports) -> None:
    fleet = ServerFleet(options(tmp_path, str(tmp_path / "none"), ports))
    with pytest.raises(RolloutError, match="cannot be started"):
        fleet.start()
    assert fleet.processes == ()
    assert fleet._guard is None


def test_no_server_outlives_an_owner_that_was_killed(tmp_path: Path, fake, ports) -> None:
    """`kill -9` of the owner leaves it no word to say: the guard ends the servers and their children."""
    owner = textwrap.dedent("""
        import json, sys, time
        from pathlib import Path
        from rltoolkit.rollout.servers import launch
        launch.GUARD_GRACE_S = 0.5
        ports = tuple(map(int, sys.argv[3:]))
        options = launch.LaunchOptions(model="m", python=sys.argv[1], ports=ports, log_dir=Path(sys.argv[2]))
        fleet = launch.ServerFleet(options)
        fleet.start()
        fleet.wait_until_healthy()
        print(json.dumps([process.pid for process in fleet.processes]), flush=True)
        time.sleep(300)
    """)
    command = [sys.executable, "-c", owner, fake(), str(tmp_path), *map(str, ports)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pids = json.loads(process.stdout.readline())
    logs = [tmp_path / f"server-{port}.log" for port in ports]
    pids += [int(log.read_text().split()[1]) for log in logs]
    assert not any(is_gone(pid) for pid in pids)
    process.kill()
    process.communicate()
    assert wait_for(lambda: all(is_gone(pid) for pid in pids))


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert "No such file" in log_end(log)
    log.write_text("")
    assert log_end(log) == "  (empty)"
    log.write_bytes(b"\xff\n" + b"x" * 100_000 + b"\nlast\n")
    assert log_end(log, 1) == "  last"
    log.write_text('why\nnanobind: leaked 3 types!\n - leaked type "a"\n - ... skipped remainder\nlast\n')
    assert log_end(log) == "  why\n  last"


# --- with vLLM ---------------------------------------------------------------------------------------------


@pytest.fixture
def vllm_python() -> str:
    python = os.environ.get("RLTOOLKIT_VLLM_PYTHON")
    if not python:
        pytest.skip("RLTOOLKIT_VLLM_PYTHON names no interpreter with vllm; run `make test-vllm`")
    return python


def group_members(group: int) -> list[int]:
    """All live processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.vllm
@pytest.mark.timeout(1000)
def test_a_real_server_with_adapters_leaves_nothing_behind(tmp_path: Path, vllm_python: str, ports) -> None:
    from rltoolkit.embedded.models import save_countdown_model

    save_countdown_model(tmp_path / "model", seed=1)
    engine = EngineOptions(dtype="float32", enforce_eager=True, lora_rank=4)
    wanted = options(tmp_path, vllm_python, ports[:1], engine=engine)
    wanted = LaunchOptions(**{**vars(wanted), "model": str(tmp_path / "model")})
    with ServerFleet(wanted) as fleet:
        fleet.wait_until_healthy()
        with urllib.request.urlopen(f"{fleet.urls[0]}/server_info?config_format=json", timeout=30) as answer:
            config = json.load(answer)["vllm_config"]
        assert config["model_config"]["logprobs_mode"] == "processed_logprobs"
        assert config["lora_config"]["max_lora_rank"] == 8
        assert config["parallel_config"]["worker_extension_cls"] == "rltoolkit_vllm_worker.PolicyWorker"
        group = fleet.processes[0].pid
        assert len(group_members(group)) > 1  # the engine is a process of its own
        os.kill(group, signal.SIGKILL)
        assert wait_for(lambda: fleet.look() == (ServerState.DEAD,))
        fleet.restart(0)
        assert group_members(group) == []
        fleet.wait_until_healthy()
        group = fleet.processes[0].pid
    assert group_members(group) == []
