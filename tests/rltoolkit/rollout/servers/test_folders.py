import os
import subprocess
import sys

from rltoolkit.rollout.servers.folders import WeightsFolder


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    script = (
        "import os, sys, pathlib\n"
        "from rltoolkit.rollout.servers.folders import WeightsFolder\n"
        "folder = WeightsFolder(pathlib.Path(sys.argv[1]))\n"
        "(folder.path / '.half-written').mkdir()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=120, check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / left.name.replace("policy-", "policy-elsewhere")).mkdir()
    here = left.name.rpartition("-")[0].rpartition("-")[0]
    (tmp_path / f"{here}-{os.getpid()}-abc").mkdir()
    kept = set(tmp_path.iterdir()) - {left}
    folder = WeightsFolder(tmp_path)
    assert set(tmp_path.iterdir()) == kept | {folder.path}
    folder.close()
    assert set(tmp_path.iterdir()) == kept


def test_old_weights_and_half_written_ones_go(tmp_path):
    folder = WeightsFolder(tmp_path / "made")
    for name in ("old", ".new-x", "base", "adapter"):
        (folder.path / name).mkdir()
    folder.keep_only(folder.path / "base", folder.path / "adapter")
    assert sorted(path.name for path in folder.path.iterdir()) == ["adapter", "base"]
    folder.close()
    folder.close()
