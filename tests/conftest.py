"""What tests of every folder share."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("RLTOOLKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_file():
    """A function that gives the path of a file in the data folder, and skips the test where it is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.is_file():
            pytest.skip(f"no {path}; set RLTOOLKIT_DATA to the folder that holds {name}")
        return path

    return find


@pytest.fixture(scope="session")
def two_processes():
    """A function that runs a script on two processes (gloo) and gives what each wrote into FOLDER/rank<N>.json.

    The script is called with the folder and further arguments. A process that goes on alone would leave the other
    waiting for half an hour: hence the time limit.
    """

    def run(script: Path, folder: Path, *arguments: str, timeout: float = 400) -> list[dict]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*launch, str(script), str(folder), *arguments],
            env=environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]

    return run
