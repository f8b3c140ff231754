"""The folder of one run: which recipe it belongs to, which phases are done, where everything lies.

A folder belongs to one recipe for good. `RunFolder.open` creates it, continues it, or refuses; it never
overwrites another run. `manifest.json` is written before anything else and every later change replaces
whole files, so a process that dies at any point leaves a folder that the same recipe continues.
"""

import datetime
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml

from rltoolkit.errors import RunFolderError
from rltoolkit.recipe.resolve import is_identity
from rltoolkit.run.atomic import is_temporary, remove_temporary, write_json, write_text
from rltoolkit.run.checkpoints import last_checkpoint
from rltoolkit.run.versions import changed_versions, collect_versions

if sys.platform != "win32":
    import fcntl

MANIFEST_FORMAT = 1
LOCK_NAME = ".lock"


class RunFolder:
    """An open run folder; only the main process writes, the others read.

    `is_done` and `result` read the manifest anew at each call, so that every process sees what the main
    process has finished; a barrier between the two is the caller's business.
    """

    def __init__(self, path: Path, *, is_main: bool = True, lock: TextIO | None = None) -> None:
        self.path = path
        self.is_main = is_main
        self._lock = lock  # held as long as this object lives

    @classmethod
    def open(
        cls, output_dir: str | Path, resolved: Mapping[str, Any], recipe_hash: str, *, is_main: bool = True
    ) -> "RunFolder":
        """Create the folder for a new run, or continue the run of the same recipe that it holds.

        `resolved` is the full recipe as plain data, `recipe_hash` its identity. Raises RunFolderError if
        the folder holds a run of another recipe (the message lists the keys that differ), something that is
        no run, or a run in which another process is at work. Processes other than the main one get a view
        and check nothing.
        """
        path = Path(output_dir)
        if not is_main:
            return cls(path, is_main=False)
        _refuse_what_is_no_run(path)
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, lock=_take_lock(path))
        if folder.manifest_path.exists():
            folder._refuse_another_recipe(resolved, recipe_hash)
        else:
            write_json(folder.manifest_path, _new_manifest(recipe_hash))
        folder._complete(resolved)
        return folder

    # ---- where things lie ----

    @property
    def manifest_path(self) -> Path:
        """`manifest.json`: the recipe's hash, the starts, the phases with their results."""
        return self.path / "manifest.json"

    @property
    def recipe_path(self) -> Path:
        """`recipe.resolved.yaml`: the recipe with every default written out."""
        return self.path / "recipe.resolved.yaml"

    @property
    def versions_path(self) -> Path:
        """`versions.json`: what the run was started on."""
        return self.path / "versions.json"

    @property
    def metrics_path(self) -> Path:
        """`metrics.jsonl`: one line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def summary_path(self) -> Path:
        """`summary.json`: the numbers at the run's end."""
        return self.path / "summary.json"

    @property
    def samples_dir(self) -> Path:
        """`samples/`: what the policy wrote, as Parquet."""
        return self.path / "samples"

    @property
    def plots_dir(self) -> Path:
        """`plots/`: the curves, as PNG."""
        return self.path / "plots"

    @property
    def model_dir(self) -> Path:
        """`model/`: the trained model with its tokenizer."""
        return self.path / "model"

    def checkpoints_dir(self, phase: str) -> Path:
        """`checkpoints/<phase>/`: the `output_dir` of that phase's Trainer."""
        return self.path / "checkpoints" / phase

    # ---- phases ----

    def is_done(self, phase: str) -> bool:
        """Whether the phase has finished, in this process or in an earlier one."""
        return phase in self.manifest()["phases"]

    def result(self, phase: str) -> dict[str, Any]:
        """Return what the phase finished with; KeyError if it has not finished."""
        return dict(self.manifest()["phases"][phase]["result"])

    def finish(self, phase: str, result: Mapping[str, Any]) -> None:
        """Record that the phase is done, with its result (JSON types, no NaN); only the main process does.

        Write the phase's files before this call: from here on the phase is skipped when the run is continued.
        """
        if not self.is_main:
            return
        manifest = self.manifest()
        manifest["phases"][phase] = {"finished_at": _now(), "result": dict(result)}
        write_json(self.manifest_path, manifest)

    def last_checkpoint(self, phase: str = "train") -> Path | None:
        """Return the newest complete checkpoint of the phase, or None; torn ones do not count."""
        return last_checkpoint(self.checkpoints_dir(phase))

    def manifest(self) -> dict[str, Any]:
        """Return the manifest as it is on the disk now; RunFolderError if it is not one of ours."""
        try:
            manifest = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunFolderError(f"{self.manifest_path} is not valid JSON ({error}); {_remedy(self.path)}") from error
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != MANIFEST_FORMAT:
            raise RunFolderError(
                f"{self.manifest_path} has format {found!r}, expected {MANIFEST_FORMAT}; {_remedy(self.path)}"
            )
        return dict(manifest)

    # ---- the run's end ----

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json` (JSON types, no NaN); does nothing on other processes."""
        if self.is_main:
            write_json(self.summary_path, dict(summary))

    def close(self) -> None:
        """Let another process continue the run; ending the process does the same."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # ---- creating and continuing ----

    def _refuse_another_recipe(self, resolved: Mapping[str, Any], recipe_hash: str) -> None:
        recorded = self.manifest()["recipe_hash"]
        if recorded == recipe_hash:
            return
        hashes = f"hash {recorded[:12]}, this recipe {recipe_hash[:12]}"
        lines = [f"{self.path} holds a run of another recipe ({hashes})."]
        if self.recipe_path.exists():
            before = yaml.safe_load(self.recipe_path.read_text(encoding="utf-8"))
            differences = differing_keys(before, resolved)
            lines.append("They differ in:" if differences else "No key differs: other data, or another rltoolkit.")
            lines += [f"  {key}: {old} in that run, {new} now" for key, old, new in differences]
        raise RunFolderError("\n".join([*lines, f"Nothing was changed. To go on, {_remedy(self.path)}"]))

    def _complete(self, resolved: Mapping[str, Any]) -> None:
        """Write what a start that died early may have left out, and record this start."""
        for directory in (self.samples_dir, self.plots_dir, self.path / "checkpoints"):
            directory.mkdir(exist_ok=True)
        remove_temporary(self.path)
        if not self.recipe_path.exists():
            write_text(self.recipe_path, yaml.safe_dump(_plain(resolved), sort_keys=False, allow_unicode=True))
        now = collect_versions()
        if not self.versions_path.exists():
            write_json(self.versions_path, now)
        first = json.loads(self.versions_path.read_text(encoding="utf-8"))
        manifest = self.manifest()
        manifest["starts"].append({"at": _now(), "changed_versions": changed_versions(first, now)})
        write_json(self.manifest_path, manifest)


def differing_keys(before: Any, now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return `(dotted key, value before, value now)` for each difference between two resolved recipes.

    Values are shown as JSON, a key that one side lacks as "absent". What does not make it another run, such as
    where it happens, is left out.
    """
    old, new = _flat(before), _flat(_plain(now))
    keys = [key for key in {**old, **new} if is_identity(tuple(key.split(".")))]
    return [(key, old.get(key, "absent"), new.get(key, "absent")) for key in keys if old.get(key) != new.get(key)]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        flat: dict[str, str] = {}
        for key, inner in value.items():
            flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: json.dumps(value, ensure_ascii=False, default=str)}


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same in JSON types alone, as YAML and a later comparison with the file need it."""
    return dict(json.loads(json.dumps(dict(value), default=str)))


def _refuse_what_is_no_run(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"output_dir {path} is a file, expected a folder; set output_dir=... to another one")
    if not path.exists() or (path / "manifest.json").exists():
        return
    # A first start that died before its manifest leaves only a lock and a temporary file.
    found = sorted(item.name for item in path.iterdir() if item.name != LOCK_NAME and not is_temporary(item))
    if found:
        listed = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise RunFolderError(
            f"output_dir {path} is not empty and holds no run (no manifest.json; found {listed}). "
            f"Nothing was changed. Set output_dir=... to a new folder, or empty this one"
        )


def _take_lock(path: Path) -> TextIO | None:
    """Hold `path/.lock` until this process ends; RunFolderError if another process holds it.

    Record locks belong to the process and end with it, however it ends, so a crash leaves no stale lock. On a
    filesystem without locks the run goes on without one.
    """
    if sys.platform == "win32":  # no such locks: two runs in one folder are not noticed
        return None
    file = (path / LOCK_NAME).open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise RunFolderError(
            f"another process (id {holder}) is running in {path}; wait for it, end it, or set output_dir=..."
        ) from error
    except OSError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _new_manifest(recipe_hash: str) -> dict[str, Any]:
    return {"format": MANIFEST_FORMAT, "recipe_hash": recipe_hash, "starts": [], "phases": {}}


def _remedy(path: Path) -> str:
    return f"set output_dir=... to another folder, or delete {path} if its run is no longer wanted"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
