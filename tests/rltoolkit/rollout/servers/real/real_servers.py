"""What the tests on real vLLM servers share: policies, the check of samples, servers of other kinds, accidents."""

import contextlib
import copy
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import torch

from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.servers.backend import ServerOptions, VLLMServerBackend
from rltoolkit.rollout.servers.launch import LaunchOptions
from rltoolkit.rollout.servers.launch_options import server_command, server_environment
from rltoolkit.types import SamplingParams, StopReason

PYTHON = os.environ.get("RLTOOLKIT_VLLM_PYTHON")
START_S = 300.0
"""A server is up in 12 s on idle cores; others may use them."""
TOKENIZER = countdown_tokenizer()
EOS = TOKENIZER.eos_token_id
FLOAT32, BFLOAT16 = 1e-3, 2e-2


def policy(seed, **shape):
    """A small Llama whose next token depends visibly on its weights and on all tokens before."""
    shape = {"tie_word_embeddings": True, "max_position_embeddings": 1024, "initializer_range": 0.2} | shape
    return countdown_model(seed, TOKENIZER, **shape).eval()


def changed(model, seed):
    """A copy of the policy with every weight moved, as an optimiser step moves them, only farther."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def prompts_of(count, seed=0, longest=24):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(3, len(TOKENIZER), (n,), generator=generator).tolist() for n in lengths]


def differences(model, prompt, sample, temperature=1.0):
    """Per token, how far the sample's log-probs are from the module's."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *sample.token_ids]])).logits[0, len(prompt) - 1 : -1].float()
    logprobs = (logits / (temperature or 1.0)).log_softmax(-1)
    drawn = logprobs.gather(-1, torch.tensor(sample.token_ids)[:, None])[:, 0]
    return (drawn - torch.tensor(sample.logprobs)).abs()


def check(model, prompts, answers, *, n=1, version=None, temperature=1.0, tolerance=FLOAT32):
    """Every (prompt, k) is there, complete, of the version, and of the module's distribution."""
    assert [len(samples) for samples in answers] == [n] * len(prompts)
    for prompt, samples in zip(prompts, answers, strict=True):
        for sample in samples:
            assert version in (None, sample.version)
            assert (sample.token_ids[-1] == EOS) == (sample.stop_reason is StopReason.STOP)
            assert EOS not in sample.token_ids[:-1]
            worst = float(differences(model, prompt, sample, temperature).max())
            assert worst <= tolerance, f"log-probs after {prompt} differ by {worst:.3g}: not this policy's"


def free_ports(count):
    """Ports that the system has free."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)


def get(url, path):
    with urllib.request.urlopen(f"{url}{path}", timeout=10) as answer:
        return answer.read().decode()


def metric(url, name, label=""):
    """The sum of one of a server's counters or gauges, over the lines with the label."""
    lines = [line for line in get(url, "/metrics").splitlines() if re.match(rf"vllm:{name}{{.*{label}.*}}", line)]
    assert lines, f"no metric {name}"
    return sum(float(line.split()[-1]) for line in lines)


def answered(url):
    """How many requests the server has completed since its start; those of the pool end by EOS or at the limit."""
    return metric(url, "request_success_total", 'finished_reason="(stop|length)"')


def wait_for(condition, seconds=120.0, what="the condition"):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.05)


@contextlib.contextmanager
def once_busy(url, action):
    """While the block runs, wait until requests run on the server, then act once; the block must see it happen."""

    def watch():
        wait_for(lambda: metric(url, "num_requests_running") > 0, 60, f"a request on {url}")
        action()
        done.set()

    done = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    yield
    assert done.is_set(), "the call ended before anything happened to the server"
    thread.join()


def signal_server(fleet, index, number):
    os.killpg(fleet.processes[index].pid, number)


def launch_options(folder, model, ports, **engine):
    model.save_pretrained(folder / "start")
    TOKENIZER.save_pretrained(folder / "start")
    engine = {"dtype": "float32", "enforce_eager": True} | engine
    return LaunchOptions(
        model=str(folder / "start"),
        python=PYTHON,
        ports=ports,
        engine=EngineOptions(**engine),
        log_dir=folder / "logs",
        start_timeout_s=START_S,
    )


class PlainServer:
    """A server as somebody else starts it: with the endpoints that load weights, without our worker extension."""

    def __init__(self, options):
        self.options, self.urls = options, (f"http://127.0.0.1:{options.ports[0]}",)

    def __enter__(self):
        command = server_command(self.options, 0)
        place = command.index("--worker-extension-cls")
        del command[place : place + 2]
        self.options.log_dir.mkdir()
        with self.options.log_of(0).open("wb") as log:
            environment = server_environment(self.options, 0, os.environ)
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        return self

    def wait_until_healthy(self):
        def healthy():
            assert self.process.poll() is None, self.options.log_of(0).read_text()[-2000:]
            with contextlib.suppress(OSError):
                return get(self.urls[0], "/health") == ""
            return False

        wait_for(healthy, START_S, "the server's health")

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def backend_on(urls, **options):
    options = {"request_timeout_s": 120.0, "wait_s": 60.0, "health_timeout_s": 10.0} | options
    return VLLMServerBackend(ServerOptions(urls=tuple(urls), **options), eos_token_ids=[EOS])


def use_until_it_answers(backend, url, model, version):
    """Sample until the server that was away completes requests again; every sample on the way must be right.

    Only what it completes after it shows the policy counts: before, the pool itself asks it, to compare numbers.
    """
    prompts, deadline = prompts_of(12, seed=3), time.monotonic() + START_S
    while True:
        before = answered(url) if shows_policy(backend, url) else None
        answers = backend.generate(prompts, 2, SamplingParams(max_new_tokens=24), range(12))
        check(model, prompts, answers, n=2, version=version)
        if before is not None and answered(url) > before:
            return
        assert time.monotonic() < deadline, f"{url} was not used again"
        time.sleep(0.5)  # leaves the cores to the server that starts


def shows_policy(backend, url):
    """Whether the server shows a tag of the policy that the backend synced last; no while it is away."""
    policy = backend.shared_policy
    with contextlib.suppress(OSError):
        shown = json.loads(get(url, "/weight_info"))["weight_version"]
        return shown.startswith(f"{policy.policy}:{policy.version}:")
    return False


class Cutter(ThreadingHTTPServer):
    """Stands before a server and cuts the first `cuts` answers to completions in the middle of their body."""

    daemon_threads = True

    def __init__(self, url, cuts):
        self.behind, self.cuts, self.lock = urlsplit(url).netloc, cuts, threading.Lock()
        super().__init__(("127.0.0.1", 0), Forward)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def cut_now(self):
        with self.lock:
            self.cuts -= 1
            return self.cuts >= 0


class Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        connection = HTTPConnection(self.server.behind, timeout=120)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.path == "/v1/completions" and self.server.cut_now():
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)
        connection.close()

    do_POST = do_GET

    def log_message(self, *_):
        pass
