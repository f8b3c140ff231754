"""versions.json names what is installed and imports nothing for it."""

import importlib.metadata
import json
import subprocess
import sys

from rltoolkit.run.versions import changed_versions, collect_versions


def test_versions_are_those_installed() -> None:
    versions = collect_versions()
    assert versions["packages"]["trl"] == importlib.metadata.version("trl")
    assert versions["packages"]["rltoolkit"]
    assert json.loads(json.dumps(versions)) == versions


def test_collecting_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from rltoolkit.run import folder, metrics, samples, versions\n"
        "assert versions.collect_versions()['accelerators'] is None\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'pandas', 'matplotlib'} & sys.modules.keys()\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_changes_name_both_versions_and_absence() -> None:
    before = {"python": "3.11.7", "packages": {"torch": "2.13.0", "vllm": "0.31.0", "trl": "1.16.0"}}
    now = {"python": "3.11.8", "packages": {"torch": "2.14.0", "trl": "1.16.0", "peft": "0.21.2"}}
    assert changed_versions(before, now) == {
        "peft": [None, "0.21.2"],
        "python": ["3.11.7", "3.11.8"],
        "torch": ["2.13.0", "2.14.0"],
        "vllm": ["0.31.0", None],
    }
