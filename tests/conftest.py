"""What tests of every folder share."""

import os
from pathlib import Path

import pytest

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
