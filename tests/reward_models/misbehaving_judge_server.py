"""A server of chat completions that does what the judged text tells it, good or bad. Started by judge_server.py.

The text, or else the criterion, holds a line `do: COMMAND`. Any command may begin with `times N COMMAND then `:
COMMAND for the first N requests with this line, then the rest. The model's name chooses what the server rejects.
`GET /log` tells what was asked. The port is printed; the server ends with its standard input, and after ten minutes at
the latest.
"""

import gzip
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIFETIME_S = 600.0
HANG_S = 30.0

lock = threading.Lock()
log: list[dict] = []
seen: Counter[str] = Counter()
in_flight = {"now": 0, "most": 0, "round": 0}


def completion(content, *, finish="stop", usage=(100, 10), **message):
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
        ],
    }
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return body


def answer(field, value):
    return completion(json.dumps({"reason": "because", field: value}))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        with lock:
            self.send(200, {"requests": log, "most_in_flight": in_flight["most"]})

    def do_DELETE(self):
        with lock:
            log.clear()
            seen.clear()
            # What still hangs from before counts no more.
            in_flight.update(now=0, most=0, round=in_flight["round"] + 1)
        self.send(200, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        user = body["messages"][-1]["content"]
        everything = "\n".join(message["content"] for message in reversed(body["messages"]))
        command = re.search(r"^do: (.*)$", everything, re.MULTILINE)[1]
        with lock:
            this_round = in_flight["round"]
            in_flight["now"] += 1
            in_flight["most"] = max(in_flight["most"], in_flight["now"])
            seen[command] += 1
            number = seen[command]
            headers = {name.lower(): value for name, value in self.headers.items()}
            log.append({"key": headers["authorization"], "headers": headers, "do": command, "body": body})
        try:
            if not self.rejected(body, command):
                self.obey(self.chosen(command, number), user)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with lock:
                in_flight["now"] -= this_round == in_flight["round"]

    def rejected(self, body, command):
        model = body["model"]
        if model == "no-schema-after-garbage" and seen[command] == 1:
            return False
        if model.startswith("no-schema") and "response_format" in body:
            status = 422 if model == "no-schema-422" else 400
            time.sleep(0.5 if command.startswith("slow") else 0)
            self.send(status, {"error": {"message": "response_format is not supported", "type": "invalid"}})
        elif model == "new-limit" and "max_tokens" in body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            self.send(400, {"error": {"message": message, "param": "max_tokens"}})
        elif model == "wrong-key":
            self.send(401, {"error": {"message": f"no such key: {self.headers['authorization']}"}})
        else:
            return False
        return True

    def chosen(self, command, number):
        match = re.fullmatch(r"times (\d+) (.*) then (.*)", command)
        return command if match is None else match[2] if number <= int(match[1]) else match[3]

    def obey(self, command, user):
        word, _, rest = command.partition(" ")
        getattr(self, f"do_{word}")(rest, user)

    def do_score(self, rest, user):
        self.send(200, answer("score", json.loads(rest)))

    def do_grade(self, rest, user):
        self.send(200, answer("grade", json.loads(rest)))

    def do_choose(self, rest, user):
        """A fixed choice, or `longer`: the longer of the two texts, or `lean`: A, unless B is much longer."""
        shown = dict(re.findall(r"<response-([ab])-\w+>\n(.*?)\n</response", user, re.DOTALL))
        a, b = len(shown["a"]), len(shown["b"])
        if rest == "longer":
            rest = "tie" if a == b else "A" if a > b else "B"
        elif rest == "lean":
            rest = "B" if b > 2 * a else "A"
        self.send(200, answer("choice", rest))

    def do_say(self, rest, user):
        self.send(200, completion(json.loads(rest)))

    def do_slow(self, rest, user):
        seconds, _, command = rest.partition(" ")
        time.sleep(float(seconds))
        self.obey(command, user)

    def do_hang(self, rest, user):
        self.close_connection = True
        time.sleep(HANG_S)

    def do_status(self, rest, user):
        """`status N [key=value ...]`: with a header retry-after (`date+S` for a date) or an error code."""
        status, *options = rest.split()
        given = dict(option.split("=") for option in options)
        headers = {}
        if wait := given.get("retry-after"):
            headers["retry-after"] = formatdate(time.time() + float(wait[5:]), usegmt=True) if "date" in wait else wait
        self.send(int(status), {"error": {"message": "as told", "code": given.get("code")}}, headers)

    def do_drip(self, rest, user):
        """A byte now and then: no single read takes long."""
        self.close_connection = True
        self.head(200, 10_000)
        end = time.monotonic() + HANG_S
        while time.monotonic() < end:
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.05)

    def do_garbage(self, rest, user):
        self.send(200, b"<html>gateway</html>", {"content-type": "text/html"})

    def do_halfjson(self, rest, user):
        self.send(200, b'{"choices": [{"mess')

    def do_cut(self, rest, user):
        """The connection breaks within the body."""
        self.close_connection = True
        self.head(200, 1000)
        self.wfile.write(b'{"choices": ')

    def do_drop(self, rest, user):
        self.close_connection = True

    def do_badgzip(self, rest, user):
        self.send(200, b"no gzip at all", {"content-encoding": "gzip"})

    def do_bomb(self, rest, user):
        """1 MB that unpacks to 256 MB, whatever was accepted."""
        packed = gzip.compress(b" " * 2**28, 1)
        self.send(200, packed, {"content-encoding": "gzip"})

    def do_flood(self, rest, user):
        """`flood STATUS`: a body without end."""
        self.close_connection = True
        self.head(int(rest), 10**15, {"location": "/elsewhere"})
        end = time.monotonic() + HANG_S
        while time.monotonic() < end:
            self.wfile.write(b" " * 2**20)

    def do_charset(self, rest, user):
        """`charset STATUS NAME`: a body in what it claims to be an encoding of that name."""
        status, name = rest.split()
        self.send(int(status), b"bad \xff luck", {"content-type": f"text/html; charset={name}"})

    def do_echo(self, rest, user):
        """`echo PLACE N`: the key behind N characters, in the answer of 200, in its reason, or instead of it."""
        place, count = rest.split()
        quoted = "x" * int(count) + self.headers["authorization"]
        if place == "answer":
            self.send(200, completion(quoted))
        elif place == "reason":
            self.send(200, completion(json.dumps({"reason": quoted, "score": 0.5})))
        elif place == "refusal":
            self.send(200, completion(None, refusal=quoted))
        else:
            self.send(int(place), quoted.encode())

    def do_redirect(self, rest, user):
        """To itself, for ever."""
        self.send(307, b"moved", {"location": self.path})

    def do_noise(self, rest, user):
        """What is no HTTP at all."""
        self.close_connection = True
        self.wfile.write(b"\x00\xff\x00\xff\r\n\r\n")

    def do_oddbody(self, rest, user):
        """`oddbody N JSON`: a status with a body that is no usual error."""
        status, _, body = rest.partition(" ")
        self.send(int(status), body.encode("latin-1"))

    def do_empty(self, rest, user):
        self.send(200, {**completion("x"), "choices": []})

    def do_length(self, rest, user):
        self.send(200, completion('{"reason": "the resp', finish="length"))

    def do_refuse(self, rest, user):
        self.send(200, completion(None, refusal="I cannot judge this."))

    def do_filter(self, rest, user):
        self.send(200, completion("", finish="content_filter"))

    def do_nousage(self, rest, user):
        self.send(200, completion('{"reason": "", "score": 0.5}', usage=None))

    def head(self, status, length, headers=()):
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(length), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.head(status, len(data), headers)
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Timer(LIFETIME_S, os._exit, [0]).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
