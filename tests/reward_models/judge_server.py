"""Starts misbehaving_judge_server.py as a process of its own and asks it what it has seen."""

import json
import select
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_models.judge import Judge, JudgeCounts, Judgement, JudgeSettings

SCRIPT = Path(__file__).with_name("misbehaving_judge_server.py")
START_S = 60.0  # a busy machine may take long to start a process; it never matters otherwise


@dataclass(frozen=True)
class JudgeServer:
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def settings(self, **changes: Any) -> JudgeSettings:
        """Settings for this server: quick to come back, patient with a busy machine."""
        return JudgeSettings(**{"model": "judge", "base_url": self.url, "backoff_s": 0.01, "max_retries": 2} | changes)

    def requests(self) -> list[dict[str, Any]]:
        """What was asked since the last `forget`, in order of arrival."""
        return self._call("GET")["requests"]

    def most_in_flight(self) -> int:
        return self._call("GET")["most_in_flight"]

    def forget(self) -> None:
        self._call("DELETE")

    def _call(self, method: str) -> dict[str, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/", method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
            return json.loads(reply.read())


@contextmanager
def running_judge_server() -> Iterator[JudgeServer]:
    process = subprocess.Popen([sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        assert ready, "the judge server of the tests does not start"
        yield JudgeServer(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def score(server: JudgeServer, commands: Sequence[str], **settings: Any) -> tuple[list[Judgement], JudgeCounts]:
    """The judgements of texts that tell the server what to do, and the counts after them."""
    with Judge(server.settings(**settings)) as judge:
        return judge.score_many("anything", [f"do: {command}" for command in commands]), judge.counts()
