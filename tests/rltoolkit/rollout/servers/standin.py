"""A stand-in for a vLLM server: the same endpoints, real samples of a tiny model, and faults on demand.

It is for what must go wrong at a given moment; what vLLM itself does is tested against vLLM.
"""

import contextlib
import copy
import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from peft import PeftModel
from safetensors.torch import load_file

from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.rollout.vllm_worker.rltoolkit_vllm_worker import folder_digest
from rltoolkit.types import SamplingParams

WEIGHTS = "model.safetensors"


class StandIn:
    """A server on a port of its own, which it keeps when it dies and comes back."""

    def __init__(self, model):
        self.start_model = model
        self.port = None
        self.fault = lambda path: None
        """Path -> None, or "hang", "cut", "drop", "html", a status, or seconds to wait before answering."""
        self.lora_rank = None
        self.extension = True
        self.logprobs_mode = "processed_logprobs"
        self.dev = True
        self.loads = True
        self.loaded = []
        """Folders it was told to load, in order."""
        self.sees = lambda folder: folder
        """Folder -> where it lies for this server."""
        self.max_model_len = 128
        self.dtype = "torch.float32"
        self.queue_s = 0.0
        """Seconds that each completion takes, one after the other in the order they came, but for those given up."""
        self.resets = True
        self.device = "cpu"
        self.description = {}
        self.paths = []
        self.running = self.most_running = self.connections = 0
        self.lock, self.engine = threading.Lock(), threading.Lock()
        self.released = threading.Event()
        self._server = None
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Serve the model it was made with, as after a restart."""
        self.forget()
        self.released.clear()
        self._sockets = []
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port or 0), _handler(self), bind_and_activate=False)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, address: None  # a client that hung up
        self._server.request_queue_size = 256
        self._server.server_bind()
        self._server.server_activate()
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def forget(self):
        """Take the start weights and the start tag, as an unnoticed restart does."""
        self.model, self.tag, self.adapters = self.start_model, "default", {}

    def die(self):
        """End at once, and every connection with it."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self.released.set()
        server.shutdown()
        server.server_close()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)

    def count(self, path):
        return sum(p == path for p in self.paths)

    def answer(self, path, body):
        """Return status and JSON (or text)."""
        if not self.dev and path in ("/server_info", "/collective_rpc", "/weight_info"):
            return 404, {"detail": "Not Found"}
        return getattr(self, "at" + path.replace("/", "_").replace("v1_", ""), lambda body: (404, {}))(body)

    def at_health(self, body):
        return 200, ""

    def at_models(self, body):
        own = {"id": "policy", "parent": None, "max_model_len": self.max_model_len}
        return 200, {"data": [{"id": name, "parent": "policy"} for name in self.adapters] + [own]}

    def at_server_info(self, body):
        config = {
            "model_config": {
                "dtype": self.dtype,
                "max_model_len": self.max_model_len,
                "logprobs_mode": self.logprobs_mode,
            },
            "device_config": {"device": self.device},
            "parallel_config": {"worker_extension_cls": "worker.PolicyWorker" if self.extension else ""},
            "lora_config": {"max_lora_rank": self.lora_rank} if self.lora_rank else None,
        }
        return 200, {"vllm_config": config}

    def at_weight_info(self, body):
        return 200, {"weight_version": self.tag}

    def at_update_weight_version(self, body):
        self.tag = body["new_version"]
        return 200, {"success": True}

    def at_reset_prefix_cache(self, body):
        return 200, {"success": self.resets}

    def at_collective_rpc(self, body):
        if body["method"] == "rltoolkit_model":
            config = self.model.config
            return 200, {"results": [{"vocab_size": config.vocab_size, "hidden_size": config.hidden_size}]}
        folder = self.sees(body["kwargs"]["weights_path"])
        self.loaded.append(folder)
        # Not by from_pretrained, which changes global state while it builds a model: this is a thread of a test.
        model = copy.deepcopy(self.model)
        missing, unknown = model.load_state_dict(load_file(f"{folder}/{WEIGHTS}"), strict=False)
        assert not unknown
        assert missing == (["lm_head.weight"] if model.config.tie_word_embeddings else [])
        if self.loads:
            self.model = model
        own = body["method"] == "rltoolkit_load"
        return 200, {"results": [{"digest": folder_digest(Path(folder))} if own else None]}

    def at_load_lora_adapter(self, body):
        config = json.loads(Path(body["lora_path"], "adapter_config.json").read_text())
        if config["r"] > (self.lora_rank or 0):
            return 400, {"error": {"message": f"rank {config['r']} is greater than max_lora_rank {self.lora_rank}"}}
        if body["lora_name"] in self.adapters:
            return 400, {"error": {"message": f"{body['lora_name']} has already been loaded"}}
        adapted = PeftModel.from_pretrained(copy.deepcopy(self.model), body["lora_path"])
        self.adapters[body["lora_name"]] = adapted.eval()
        return 200, "Success"

    def at_unload_lora_adapter(self, body):
        return (200, "Success") if self.adapters.pop(body["lora_name"], None) else (404, {})

    def at_completions(self, body):
        if max(body["prompt"]) >= self.model.config.vocab_size:
            return 400, {"error": {"message": f"token id {max(body['prompt'])} is out of vocabulary"}}
        if len(body["prompt"]) + body["max_tokens"] > self.max_model_len:
            return 400, {"error": {"message": f"maximum context length is {self.max_model_len} tokens"}}
        model = self.model
        if body["model"] != "policy":
            if body["model"] not in self.adapters:
                return 404, {"error": {"message": f"no model {body['model']}"}}
            model = self.adapters[body["model"]]
        names = ("temperature", "top_p", "top_k", "min_p")
        sampling = SamplingParams(**{name: body[name] for name in names}, max_new_tokens=body["max_tokens"])
        with self.lock:
            backend = TransformersBackend(model, eos_token_ids=body["stop_token_ids"] or [10**6])
            samples = backend.generate([body["prompt"]], body["n"], sampling, [body["seed"]])[0]
        choices = [
            {
                "index": k,
                "token_ids": sample.token_ids,
                "logprobs": {"token_logprobs": sample.logprobs},
                "finish_reason": sample.stop_reason,
                "prompt_token_ids": body["prompt"],
            }
            for k, sample in enumerate(samples)
        ]
        return 200, {"choices": choices[::-1]}


def end_unseen(backend):
    """End a backend without a word to its servers, as when its process is killed."""
    backend._thread.close(*(server.client.close for server in backend._servers))
    backend._policy = None


def _handler(stand_in):
    return type("Handler", (_Handler,), {"stand_in": stand_in})


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests, with the faults that the test switched on."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    stand_in = None

    def setup(self):
        super().setup()
        self.stand_in.connections += 1
        self.stand_in._sockets.append(self.connection)

    def handle(self):
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.respond()

    def do_POST(self):
        self.respond()

    def given_up(self):
        with contextlib.suppress(BlockingIOError):
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        return False

    def respond(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        path = self.path.partition("?")[0]
        self.stand_in.paths.append(path)
        fault = self.stand_in.fault(path)
        if fault == "hang":
            self.stand_in.released.wait(60)
        if isinstance(fault, float):
            time.sleep(fault)
        if fault in ("hang", "drop") or not self.wait_in_queue(path):
            self.close_connection = True
            return
        status, answer = self.answer(path, body)
        if fault == "html":
            status, answer = 200, "<html>welcome</html>"
        if isinstance(fault, int):
            status, answer = fault, {"error": {"message": "something broke"}}
        self.write(status, answer, cut=fault == "cut")

    def wait_in_queue(self, path):
        """One completion at a time, where the test wants a queue; False when the client has gone meanwhile."""
        if not self.stand_in.queue_s or path != "/v1/completions":
            return True
        with self.stand_in.engine:
            if self.given_up():
                return False
            time.sleep(self.stand_in.queue_s)
        return True

    def answer(self, path, body):
        """The stand-in's answer, counting how many completions run at once."""
        completion = path == "/v1/completions"
        with self.stand_in.lock:
            self.stand_in.running += completion
            self.stand_in.most_running = max(self.stand_in.most_running, self.stand_in.running)
        try:
            return self.stand_in.answer(path, body)
        finally:
            with self.stand_in.lock:
                self.stand_in.running -= completion

    def write(self, status, answer, *, cut):
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if cut:
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)
        self.wfile.flush()
