"""`rltoolkit serve`: what it plans, how it watches, and that it leaves nothing behind."""

import importlib.util
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from rltoolkit.commands import serve as serve_module
from rltoolkit.commands.serve import serve
from rltoolkit.commands.serve_plan import plan_servers
from rltoolkit.errors import RolloutError
from rltoolkit.recipe import LoadedRecipe, RecipeError, load_recipe
from rltoolkit.recipe.contradictions import SERVING_RULES

TEXT = """\
method: rlsp
model: {name_or_path: "embedded:countdown"}
data: {train: {path: "embedded:countdown"}}
rewards: {outcome: {verifier: countdown}}
rollout:
  backend: vllm-server
  max_prompt_tokens: 32
  max_new_tokens: 32
  engine: {enforce_eager: true}
  servers: {}
train: {use_cpu: true, bf16: false, per_device_train_batch_size: 4}
"""
# Stands in for an interpreter with vLLM: says what it has, and serves /health; its ids go to the file beside it.
FAKE = """\
#!{python} -S
import http.server, json, os, sys
if sys.argv[1] == "-c":
    print("noise at import\\n" + json.dumps({facts}))
    sys.exit()
with open(__file__ + ".pids", "a") as pids:
    print(os.getpid(), file=pids)
print("hello from", os.getpid(), flush=True)
{behaviour}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def fake(tmp_path: Path):
    """A function that writes such an interpreter."""

    def write(behaviour: str = "", vllm: str | None = "0.31.0", gpus: int = 0) -> Path:
        path = tmp_path / "python"
        facts = {"vllm": vllm, "gpus": gpus}
        path.write_text(FAKE.format(python=sys.executable, behaviour=behaviour, facts=facts))
        path.chmod(0o755)
        return path

    return write


ONE_URL = "rollout.servers.urls=['http://a:1']"
HTTPS_URL = "rollout.servers.urls=['https://a:1']"


@pytest.fixture
def load(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(TEXT)

    def load_with(*overrides: str) -> LoadedRecipe:
        return load_recipe(path, overrides, rules=SERVING_RULES)

    return load_with


@pytest.fixture
def port():
    """A port that is free now, and the one after it."""
    for _ in range(50):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            number = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", number + 1))
            except OSError:
                continue
            return number
    raise RuntimeError("no two free ports in a row")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs and models go where the test can see them, and looks come quickly."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setattr(serve_module, "LOOK_EVERY_S", 0.05)
    return place


def pids_of(fake: Path) -> list[int]:
    path = fake.with_name(fake.name + ".pids")
    return list(map(int, path.read_text().split())) if path.exists() else []


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Script:
    """Hears what `serve` says, and does something at each line that begins with a given word, in turn."""

    def __init__(self, *steps) -> None:
        self.lines: list[str] = []
        self.steps = list(steps)

    def __call__(self, text: str) -> None:
        self.lines.append(text)
        if self.steps and text.startswith(self.steps[0][0]):
            self.steps.pop(0)[1]()


def send(number: signal.Signals):
    return lambda: os.kill(os.getpid(), number)


# --- what is planned ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "overrides", "ports", "devices"),
    [
        (0, [], (8100,), ()),
        (2, [], (8100, 8101), (0, 1)),
        (5, ["rollout.engine.tensor_parallel=2"], (8100, 8101), (0, 1, 2, 3)),
        (2, ["rollout.servers.devices=[]"], (8100,), ()),
        (4, ["rollout.servers.devices=[3, 1]", "rollout.servers.port=9000"], (9000, 9001), (3, 1)),
        (0, ["rollout.servers.urls=['http://127.0.0.1:7', 'http://127.0.0.1:5']"], (7, 5), ()),
        (4, ["rollout.servers.urls=['http://127.0.0.1:7']"], (7,), (0,)),
        (0, ["rollout.servers.urls=['http://127.0.0.1:7']", "rollout.servers.port=7"], (7,), ()),
    ],
)
def test_one_server_per_device_or_per_url(load, fake, gpus, overrides, ports, devices) -> None:
    plan = plan_servers(load(f"rollout.servers.python={fake(gpus=gpus)}", *overrides))
    assert (plan.host, plan.ports, plan.devices, plan.vllm) == ("127.0.0.1", ports, devices, "0.31.0")


@pytest.mark.parametrize(
    ("gpus", "overrides", "says"),
    [
        (0, ["rollout.servers.devices=[0]"], "names GPU 0, and vLLM's python sees 0; set it to []"),
        (2, ["rollout.servers.devices=[0, 2]"], "names GPU 2, and vLLM's python sees 2; give numbers below 2"),
        (0, ["rollout.engine.tensor_parallel=2"], "is 2 on the CPU"),
        (1, ["rollout.engine.tensor_parallel=2"], "is 2 with 1 GPU(s)"),
        (1, ["rollout.servers.urls=['http://a:1', 'http://a:2']"], "names 2 servers of 1 GPU(s) each, for 1 GPUs"),
        (2, ["rollout.servers.urls=['http://a:1']", "rollout.servers.devices=[0, 1]"], "names 1 servers"),
        (0, ["rollout.servers.urls=['http://a:1', 'http://b:1']"], "names several hosts (a, b)"),
        (0, ["rollout.servers.urls=['https://a:1']"], "servers start without TLS"),
        (0, [ONE_URL, "rollout.servers.host=0.0.0.0"], "whose first says 'a'; give one of the two"),
        (0, [ONE_URL, "rollout.servers.port=9"], "rollout.servers.port on the command line is 9 beside"),
        (2, ["rollout.servers.port=65535"], "and 2 servers need up to 65536"),
    ],
)
def test_what_cannot_be_served_here(load, fake, gpus, overrides, says) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_servers(load(f"rollout.servers.python={fake(gpus=gpus)}", *overrides))
    assert says in str(caught.value)


def test_an_interpreter_without_vllm(load, fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for python, says in [
        (fake(vllm=None), "which has no vLLM; install it there, or give the python of"),
        (tmp_path / "none", "which is no program here"),
        ("/bin/false", "cannot tell whether it has vLLM: it says nothing"),
        ("/bin/true", "does not answer as Python does; give the python of an environment that has vLLM"),
        *([] if importlib.util.find_spec("vllm") else [(sys.executable, "which has no vLLM")]),
    ]:
        with pytest.raises(RecipeError) as caught:
            plan_servers(load(f"rollout.servers.python={python}"))
        assert says in str(caught.value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="is null, and vLLM is not installed here"):
        plan_servers(load())


def test_all_that_is_wrong_is_said_before_an_interpreter_is_started(load, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(RecipeError) as caught:
        plan_servers(
            load(f"rollout.servers.python={tmp_path / 'none'}", "rollout.servers.urls=['https://a:1']"), said.append
        )
    assert [problem.key for problem in caught.value.problems] == ["rollout.servers.urls", "rollout.servers.python"]
    assert said == []


@pytest.mark.parametrize(
    ("argv", "found", "program"),
    [
        ("/usr/bin/rltoolkit", "/usr/bin/rltoolkit", ["rltoolkit"]),
        ("/opt/a/bin/rltoolkit", "/usr/bin/rltoolkit", ["/opt/a/bin/rltoolkit"]),
        ("/opt/a/bin/rltoolkit", None, ["/opt/a/bin/rltoolkit"]),
        ("/x/rltoolkit/__main__.py", None, [sys.executable, "-m", "rltoolkit"]),
    ],
)
def test_the_command_names_the_program_that_runs(load, monkeypatch, argv, found, program) -> None:
    monkeypatch.setattr(sys, "argv", [argv])
    monkeypatch.setattr("shutil.which", lambda name: found)
    loaded = load()
    command = shlex.split(serve_module.train_command(loaded, ("http://127.0.0.1:1",)))
    assert command[: len(program) + 2] == [*program, "train", str(loaded.path)]


# --- how it watches ----------------------------------------------------------------------------------------


def test_it_serves_until_it_is_told_to_stop(load, fake, port, folders, capsys, monkeypatch) -> None:
    script = Script(("ready", send(signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)
    python = fake()
    urls = [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"]
    monkeypatch.setattr(sys, "argv", [".venv/bin/rltoolkit", "serve"])
    kept = ["model.dtype=bfloat16", "rollout.servers.wait_s=7.5", "rollout.max_new_tokens=33"]
    loaded = load(f"rollout.servers.python={python}", f"rollout.servers.urls={urls}", *kept)
    assert serve(loaded, script) == 0
    assert [line.split(":")[0] for line in script.lines if not line.startswith("loading")] == [
        f"looking at {python}",
        "starting 2 server(s) on the CPU with " + f"{python} (vLLM 0.31.0); logs",
        "healthy",
        "healthy",
        "ready; in another terminal",
        "stopping",
    ]
    command = shlex.split(next(line for line in script.lines if line.startswith("ready")).splitlines()[1])
    assert command[:6] == [".venv/bin/rltoolkit", "train", str(loaded.path), *kept]
    assert "rollout.servers.python" not in " ".join(command)
    rollout = load_recipe(command[2], command[3:]).recipe.rollout
    assert (rollout.backend, list(rollout.servers.urls)) == ("vllm-server", urls)
    assert len(pids_of(python)) == 2
    assert all(is_gone(pid) for pid in pids_of(python))
    assert signal.getsignal(signal.SIGTERM) == before
    assert list(folders.glob("rltoolkit-*")) == []
    assert capsys.readouterr().err == ""


def test_a_server_that_dies_is_reported_and_started_again(load, fake, port, folders, capsys) -> None:
    python = fake()
    script = Script(("ready", lambda: os.kill(pids_of(python)[0], signal.SIGKILL)), ("healthy", send(signal.SIGINT)))
    assert serve(load(f"rollout.servers.python={python}", f"rollout.servers.port={port}"), script) == 0
    first, second = pids_of(python)
    assert is_gone(first)
    assert is_gone(second)
    error = capsys.readouterr().err
    assert f"rltoolkit serve: the vLLM server http://127.0.0.1:{port} ended by signal 9; the end of" in error
    assert f"  hello from {first}" in error
    assert f"restarting http://127.0.0.1:{port} (1 of at most 5 times)" in script.lines
    [logs] = folders.glob("rltoolkit-*")
    assert (logs / f"server-{port}.log").read_text().count("hello") == 2


def test_it_gives_up_when_the_last_one_dies_too_often(load, fake, port, capsys) -> None:
    python = fake()
    kill = lambda: os.kill(pids_of(python)[-1], signal.SIGKILL)  # noqa: E731
    script = Script(("ready", kill), *[("healthy", kill)] * 5)
    assert serve(load(f"rollout.servers.python={python}", f"rollout.servers.port={port}"), script) == 1
    assert len(pids_of(python)) == 1 + 5
    assert all(is_gone(pid) for pid in pids_of(python))
    error = capsys.readouterr().err
    assert error.count("ended by signal 9") == 6
    assert f"giving up http://127.0.0.1:{port} after 5 restarts" in error
    assert "(0 of 1 servers left)" in error


def test_a_server_that_never_gets_ready_is_an_error(load, fake, port) -> None:
    python = fake("print('no such model'); sys.exit(1)")
    with pytest.raises(RolloutError, match="before it was healthy") as caught:
        serve(load(f"rollout.servers.python={python}", f"rollout.servers.port={port}"), Script())
    assert "  no such model" in str(caught.value)
    assert len(pids_of(python)) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_stopped_before_it_was_ready(load, fake, port, number, code) -> None:
    python = fake("import time; time.sleep(300)")
    script = Script(("starting", send(number)))
    assert serve(load(f"rollout.servers.python={python}", f"rollout.servers.port={port}"), script) == code
    assert all(is_gone(pid) for pid in pids_of(python))


def test_an_address_that_others_can_reach_is_warned_of(load, fake, port, capsys) -> None:
    python = fake()
    overrides = [f"rollout.servers.python={python}", f"rollout.servers.port={port}", "rollout.servers.host=0.0.0.0"]
    script = Script(("ready", send(signal.SIGTERM)))
    assert serve(load(*overrides), script) == 0
    error = capsys.readouterr().err
    assert "warning: 0.0.0.0 can be reached from other machines" in error
    assert "have no authentication" in error
    assert f"http://{socket.gethostname()}:{port}" in script.lines[-2]


# --- with vLLM ---------------------------------------------------------------------------------------------


@pytest.mark.vllm
@pytest.mark.timeout(1000)
def test_a_real_server_answers_comes_back_and_goes(load, port, tmp_path: Path, folders) -> None:
    """Its folder for temporary files has a name too long for vLLM's sockets, as on many clusters."""
    python = os.environ.get("RLTOOLKIT_VLLM_PYTHON")
    if not python:
        pytest.skip("RLTOOLKIT_VLLM_PYTHON names no interpreter with vllm; run `make test-vllm`")
    long = folders / ("x" * 80)
    long.mkdir()
    recipe = load().path
    command = [sys.executable, "-m", "rltoolkit", "serve", str(recipe), f"rollout.servers.python={python}"]
    out, url = tmp_path / "out.txt", f"http://127.0.0.1:{port}"
    with out.open("w") as file:
        environ = {**os.environ, "TMPDIR": str(long)}
        process = subprocess.Popen(
            [*command, f"rollout.servers.port={port}"], stdout=file, stderr=subprocess.STDOUT, env=environ
        )
    try:
        wait_for_line(process, out, "ready; in another terminal", 1)
        assert json.dumps([url]) in out.read_text()
        first = servers_of(process.pid)
        assert len(first) > 1
        assert complete(url) == complete(url)
        os.kill(min(first), signal.SIGKILL)
        wait_for_line(process, out, f"healthy: {url}", 2)
        assert len(complete(url)) == 5
        second = servers_of(process.pid)
        assert not set(first) & set(second)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, out.read_text()
    finally:
        process.kill()  # the guard ends the servers
        process.wait()
    assert all(is_gone(pid) for pid in (*first, *second))
    assert "ended by signal 9" in out.read_text()


def wait_for_line(process, out: Path, text: str, count: int) -> None:
    deadline = time.monotonic() + 400
    while out.read_text().count(text) < count:
        assert process.poll() is None, out.read_text()
        assert time.monotonic() < deadline, out.read_text()
        time.sleep(0.2)


def servers_of(parent: int) -> list[int]:
    """All processes below one, its guard left out."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {parent}
    while more := {pid for pid, above in parents.items() if above in found} - found:
        found |= more
    return [pid for pid in found - {parent} if b"guard.py" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def complete(url: str) -> list[int]:
    body = {"model": "policy", "prompt": [1, 8, 9], "max_tokens": 5, "temperature": 0, "ignore_eos": True}
    body["return_token_ids"] = True
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["choices"][0]["token_ids"]
