"""What `check` says of the servers of a recipe: those that serve, those that are away, those of another kind."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rltoolkit.check.machine import Machine
from rltoolkit.check.run import check_recipe
from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.recipe import load_recipe

CPU = Machine(gpus=0, memory_gib=8.0, vllm=False)
TEXT = """\
method: sft
model: {name_or_path: "embedded:countdown"}
sft: {data: {path: "embedded:countdown", limit: 4, format: text}}
train: {use_cpu: true, bf16: false, max_steps: 1}
rollout: {backend: vllm-server}
eval: {tasks: [countdown], questions: 2}
"""


@pytest.fixture
def serve():
    """A function that starts a server which describes itself as vLLM does, with some of that changed."""
    started = []

    def start(**changed):
        config = {**countdown_model(0, countdown_tokenizer()).config.to_dict(), **changed}
        mode = changed.get("logprobs_mode", "processed_logprobs")
        server_info = {
            "model_config": {"dtype": "torch.float32", "max_model_len": 99, "logprobs_mode": mode},
            "device_config": {"device": "cpu"},
            "parallel_config": {"worker_extension_cls": "worker.PolicyWorker"},
            "lora_config": None,
        }
        answers = {
            "/v1/models": {"data": [{"id": "policy", "parent": None}]},
            "/server_info": {"vllm_config": server_info},
            "/collective_rpc": {"results": [{name: config[name] for name in ("vocab_size", "hidden_size")}]},
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked.append(self.path.partition("?")[0])
                body = json.dumps(answers.get(asked[-1], {})).encode()
                self.send_response(200 if asked[-1] in answers else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        server, asked = ThreadingHTTPServer(("127.0.0.1", 0), Handler), []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}", asked

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def check(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(TEXT)

    def run(*overrides):
        said = []
        code = check_recipe(load_recipe("r.yaml", overrides), said.append, CPU)
        return code, "\n".join(said)

    return run


@pytest.fixture
def nobody():
    """A URL where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def test_servers_that_serve_and_one_that_is_away(check, serve, nobody) -> None:
    url, asked = serve()
    code, text = check(f"rollout.servers.urls=['{url}', '{nobody}']")
    assert code == 0, text
    part = text.partition("Rollout: vllm-server, 2 server(s)")[2]
    assert f"{url}: float32 on cpu, 99 tokens of context" in part
    assert f"not there: GET {nobody}/v1/models" in part
    assert "`rltoolkit serve` starts it" in text.partition("Notes")[2]
    assert set(asked) == {"/v1/models", "/server_info", "/collective_rpc"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hidden_size": 7}, "serves another model: hidden_size 7"),
        ({"logprobs_mode": "raw_logprobs"}, "gives log-probs in the mode raw_logprobs"),
    ],
)
def test_a_server_of_another_kind_is_a_problem(check, serve, changed, says) -> None:
    url, _ = serve(**changed)
    code, text = check(f"rollout.servers.urls=['{url}']")
    assert code == 2
    assert f"rollout.servers.urls: {url} {says}" in text.partition("1 problem(s)")[2]


def test_a_run_that_never_samples_asks_no_server(check, serve) -> None:
    url, asked = serve()
    code, text = check(f"rollout.servers.urls=['{url}']", "eval.tasks=[]")
    assert (code, asked) == (0, [])
    assert "Rollout:" not in text
