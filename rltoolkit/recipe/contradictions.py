"""Settings that are fine one by one and cannot hold together, and files that are not there.

Every rule is a function of a `Draft` and yields problems; `RULES` lists them. A rule is left out when a
section that it reads could not be understood, so that one slip is not reported twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltoolkit.recipe import paths, schema
from rltoolkit.recipe.accelerate_config import read_accelerate_config
from rltoolkit.recipe.addresses import refused_urls
from rltoolkit.recipe.problems import RefusedError, did_you_mean
from rltoolkit.types import VLLM_TEMPERATURES

# Flags of a vLLM server that `rltoolkit serve` sets, and what stands in a recipe for each ("": nothing does).
SERVER_FLAGS: dict[str, str] = {
    "--model": "model.name_or_path",
    "--dtype": "rollout.engine.dtype",
    "--max-model-len": "rollout.engine.max_model_len",
    "--tensor-parallel-size": "rollout.engine.tensor_parallel",
    "-tp": "rollout.engine.tensor_parallel",
    "--gpu-memory-utilization": "rollout.engine.gpu_memory_utilization",
    "--enforce-eager": "rollout.engine.enforce_eager",
    "--enable-lora": "model.lora",
    "--max-lora-rank": "model.lora.r",
    "--max-loras": "",
    "--host": "rollout.servers.host",
    "--port": "rollout.servers.port",
    "--served-model-name": "",
    "--generation-config": "",
    "--logprobs-mode": "",
    "--worker-extension-cls": "",
    "--api-key": "",
}

# The place in a recipe for what TRL's own integration calls so in `train`.
OF_TRLS_VLLM: dict[str, str] = {
    "vllm_gpu_memory_utilization": "rollout.engine.gpu_memory_utilization",
    "vllm_max_model_length": "rollout.engine.max_model_len",
    "vllm_tensor_parallel_size": "rollout.engine.tensor_parallel",
    "vllm_enable_sleep_mode": "rollout.engine.sleep",
    "vllm_server_base_url": "rollout.servers.urls",
    "vllm_server_timeout": "rollout.servers.wait_s",
}


@dataclass(frozen=True)
class Finding:
    """A problem before its place is known: the dotted key, and the three parts of the message.

    `rests_on` are the other keys of a contradiction: where one of them is broken itself, it is no contradiction.
    """

    key: str
    found: str
    expected: str = ""
    remedy: str = ""
    rests_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A recipe as far as it could be understood: a section that is broken is absent from `sections`."""

    sections: dict[str, Any]
    given: frozenset[str]
    recipe_path: Path

    @property
    def method(self) -> str | None:
        """The method's name, if it is a known one."""
        return self.sections.get("method")

    def train(self) -> dict[str, Any]:
        """The raw `train:` section, empty if it is broken."""
        return self.sections.get("train") or {}


Rule = Callable[[Draft], Iterator[Finding]]


def method_needs(draft: Draft) -> Iterator[Finding]:
    """A method has the sections that it cannot do without."""
    if draft.method is None:
        return
    for name in schema.METHODS[draft.method].needs:
        if name not in draft.given or (name in draft.sections and draft.sections[name] is None):
            yield Finding(name, "missing", remedy=f"method {draft.method} needs a section {name}")


def one_train_section(draft: Draft) -> Iterator[Finding]:
    """For `method: sft` the settings stand in `train` or in `sft.train`, not in both."""
    sft = draft.sections.get("sft")
    if draft.method == "sft" and sft is not None and sft.train and draft.train():
        yield Finding("sft.train", "given beside train", remedy="for method sft give one of the two")


def quantization_is_for_sft(draft: Draft) -> Iterator[Finding]:
    """RLSP copies the backbone for its critic, which a quantized one does not allow."""
    model = draft.sections.get("model")
    if draft.method == "rlsp" and model is not None and model.quantization is not None:
        remedy = "remove it; model.lora without it saves the gradients and optimiser states"
        yield Finding("model.quantization", f"is {model.quantization}, which rlsp does not support yet", remedy=remedy)


def quantization_needs_lora(draft: Draft) -> Iterator[Finding]:
    """Quantised weights cannot be trained."""
    model = draft.sections.get("model")
    if draft.method != "rlsp" and model is not None and model.quantization is not None and model.lora is None:
        found = f"is {model.quantization} without model.lora"
        remedy = "add model.lora, since quantised weights cannot be trained"
        yield Finding("model.quantization", found, remedy=remedy, rests_on=("model.lora",))


def cpu_precision(draft: Draft) -> Iterator[Finding]:
    """What only a GPU can do is not asked of a CPU."""
    train, model = draft.train(), draft.sections.get("model")
    if train.get("use_cpu") is not True:
        return
    if draft.method != "rlsp" and model is not None and model.quantization is not None:
        yield Finding("model.quantization", "is given with train.use_cpu: true", remedy="remove one of the two")
    if model is not None and model.dtype == "float16":
        remedy = "give float32 or bfloat16; float16 training needs a GPU's loss scaling"
        yield Finding("model.dtype", "is float16 with train.use_cpu: true", remedy=remedy)
    for key in ("fp16", "tf32"):
        if train.get(key) is True:
            yield Finding(f"train.{key}", "is true with train.use_cpu: true", remedy="remove one of the two")


def one_precision(draft: Draft) -> Iterator[Finding]:
    """Mixed precision has one format."""
    if draft.train().get("bf16") is True and draft.train().get("fp16") is True:
        yield Finding("train.fp16", "is true together with train.bf16", remedy="set one of the two to false")


def sampling_is_scored(draft: Draft) -> Iterator[Finding]:
    """The policy that samples is the policy that is scored, so RLSP samples from its whole distribution."""
    rollout = draft.sections.get("rollout")
    if draft.method != "rlsp" or rollout is None:
        return
    if rollout.temperature == 0.0:
        yield Finding("rollout.temperature", "is 0 for method rlsp", "a number > 0", "greedy sampling explores nothing")
    for key, whole in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)):
        value = getattr(rollout, key)
        if value != whole:
            remedy = f"set it to {whole}: samples of a cut distribution would be scored under the whole one"
            yield Finding(f"rollout.{key}", f"is {value} for method rlsp", remedy=remedy)


def exploration_fits(draft: Draft) -> Iterator[Finding]:
    """paper_compat is the paper's reward: length by its own constant, a judge beside it, or nothing."""
    rewards = draft.sections.get("rewards")
    if rewards is None or draft.train().get("paper_compat") is not True:
        return
    exploration = rewards.exploration
    if exploration is not None and exploration.kind not in ("length", "judge", "none"):
        remedy = "give kind length, judge or none, or set train.paper_compat=false"
        yield Finding(
            "rewards.exploration.kind",
            f"is {exploration.kind!r} with train.paper_compat: true",
            remedy=remedy,
        )


def decoupled_has_two_streams(draft: Draft) -> Iterator[Finding]:
    """Decoupled advantages need something to explore for."""
    rewards = draft.sections.get("rewards")
    if rewards is None or draft.train().get("advantage") != "decoupled":
        return
    if rewards.exploration is None or rewards.exploration.kind == "none":
        remedy = "name a kind of exploration reward, or set train.advantage=single"
        yield Finding("rewards.exploration", "is missing with train.advantage: decoupled", remedy=remedy)


def lora_critic_needs_lora(draft: Draft) -> Iterator[Finding]:
    """A critic that is an adapter stands on the base that the policy's adapter keeps frozen."""
    model = draft.sections.get("model")
    if draft.method == "rlsp" and draft.train().get("critic") == "lora" and model is not None and model.lora is None:
        remedy = "add model.lora, or set train.critic to shared or separate"
        yield Finding("train.critic", "is lora without model.lora", remedy=remedy, rests_on=("model.lora",))


def files_exist(draft: Draft) -> Iterator[Finding]:
    """Every local path is there, every embedded name is known."""
    data, sft, model = (draft.sections.get(name) for name in ("data", "sft", "model"))
    if data is not None:
        yield from _path("data.train.path", data.train.path, schema.EMBEDDED_DATA, draft.recipe_path)
    if sft is not None:
        yield from _path("sft.data.path", sft.data.path, schema.EMBEDDED_DATA, draft.recipe_path)
    if model is not None:
        yield from _path("model.name_or_path", model.name_or_path, schema.EMBEDDED_MODELS, draft.recipe_path)
    critic, key = draft.train().get("critic_model_name_or_path"), "train.critic_model_name_or_path"
    if draft.method == "rlsp" and isinstance(critic, str):
        if paths.is_embedded(critic):
            remedy = "give a model or a saved critic, or null for the policy's own backbone"
            yield Finding(key, f"is {critic!r}, and no critic is made on the spot", remedy=remedy)
        else:
            yield from _path(key, critic, (), draft.recipe_path)


def _path(key: str, path: str, embedded: tuple[str, ...], recipe_path: Path) -> Iterator[Finding]:
    try:
        where = paths.resolve_data_path(path, recipe_path)
    except RefusedError as refusal:
        yield Finding(key, refusal.found, refusal.expected, refusal.remedy)
        return
    if isinstance(where, str) and paths.is_embedded(where) and where not in embedded:
        known = ", ".join(embedded)
        yield Finding(key, f"is {path!r}", known, did_you_mean(where, embedded, f"give one of {known}"))


def launch_fits(draft: Draft) -> Iterator[Finding]:
    """The accelerate config is there, and shards only what the method can train sharded."""
    launch, key = draft.sections.get("launch"), "launch.accelerate_config"
    if launch is None or launch.accelerate_config is None:
        return
    try:
        config = read_accelerate_config(launch.accelerate_config, draft.recipe_path)
    except RefusedError as refusal:
        yield Finding(key, refusal.found, refusal.expected, refusal.remedy)
        return
    if draft.method is not None and config.shards_weights and not schema.METHODS[draft.method].trains_sharded:
        found = f"is {launch.accelerate_config!r}, which shards the weights ({config.sharding})"
        remedy = f"method {draft.method} trains with DDP or ZeRO-2; give ddp.yaml or zero2.yaml"
        yield Finding(key, found, remedy=remedy)
    if config.use_cpu is False and draft.train().get("use_cpu") is True:
        remedy = "set it to false, or give a config with use_cpu: true"
        yield Finding("train.use_cpu", f"is true, but {launch.accelerate_config} says false", remedy=remedy)


def columns_are_named(draft: Draft) -> Iterator[Finding]:
    """A dataset that is not embedded says which columns are prompt, answer and completion."""
    data, sft = draft.sections.get("data"), draft.sections.get("sft")
    wanted: list[tuple[str, Any, tuple[str, ...]]] = []
    if data is not None:
        wanted.append(("data.train", data.train, ("prompt", "reference")))
    if sft is not None:
        wanted.append(("sft.data", sft.data, ("prompt", "completion")))
    for section, source, keys in wanted:
        for key in keys:
            if not paths.is_embedded(source.path) and getattr(source, key) is None:
                help_text = type(source).model_fields[key].description
                yield Finding(f"{section}.{key}", "missing", remedy=f"give {help_text}")


def servers_are_named(draft: Draft) -> Iterator[Finding]:
    """Backend vllm-server knows whom to ask."""
    rollout = draft.sections.get("rollout")
    if rollout is not None and rollout.backend == "vllm-server" and not rollout.servers.urls:
        remedy = f"start them by `rltoolkit serve {draft.recipe_path}`, and give the URLs that it prints"
        yield Finding(
            "rollout.servers.urls", "is empty for backend vllm-server", remedy=remedy, rests_on=("rollout.backend",)
        )


def server_urls_are_right(draft: Draft) -> Iterator[Finding]:
    """A server's URL is a scheme, a host and a port; no server is named twice."""
    rollout = draft.sections.get("rollout")
    for refusal in refused_urls(rollout.servers.urls) if rollout is not None else ():
        yield Finding("rollout.servers.urls", refusal.found, refusal.expected, refusal.remedy)


def backend_fits(draft: Draft) -> Iterator[Finding]:
    """TRL's integration is RLSP's, on a GPU, with settings of its own."""
    rollout, key = draft.sections.get("rollout"), "rollout.backend"
    if rollout is None or rollout.backend != "trl-vllm":
        return
    if draft.method not in (None, "rlsp"):
        yield Finding(key, f"is trl-vllm for method {draft.method}", remedy="set rollout.backend=vllm or vllm-server")
    if draft.train().get("use_cpu") is True:
        remedy = "set rollout.backend=vllm or vllm-server, which run on a CPU, too"
        yield Finding(key, "is trl-vllm with train.use_cpu: true", remedy=remedy, rests_on=("train.use_cpu",))
    if rollout.engine != schema.EngineSection():
        remedy = "set train.vllm_gpu_memory_utilization and its like, or rollout.backend=vllm"
        yield Finding("rollout.engine", "is given for backend trl-vllm, which does not read it", remedy=remedy)


def engine_fits(draft: Draft) -> Iterator[Finding]:
    """An engine has one place for each setting."""
    rollout = draft.sections.get("rollout")
    if rollout is None or rollout.backend not in ("vllm", "vllm-server"):
        return
    engine = rollout.engine
    if rollout.backend == "vllm-server" and not engine.sleep:
        found = "is false for backend vllm-server, whose servers never sleep"
        yield Finding("rollout.engine.sleep", found, remedy="remove it, or set rollout.backend=vllm")
    if rollout.backend == "vllm" and engine.tensor_parallel > 1:
        found = f"is {engine.tensor_parallel} for backend vllm, where each process samples on its own GPU"
        yield Finding("rollout.engine.tensor_parallel", found, remedy="set it to 1, or rollout.backend=vllm-server")
    if rollout.backend == "vllm" and engine.args:
        remedy = "remove them, or set rollout.backend=vllm-server"
        yield Finding("rollout.engine.args", "are flags of a server, given for backend vllm", remedy=remedy)
    for name in (name for name in draft.train() if name.startswith("vllm_")):
        if name.startswith("vllm_importance_sampling"):  # what RLSP makes of any sampler's log-probs
            continue
        instead = OF_TRLS_VLLM.get(name)
        remedy = f"set {instead}" if instead else "remove it, or set rollout.backend=trl-vllm"
        yield Finding(f"train.{name}", f"is of TRL's own vLLM, not of backend {rollout.backend}", remedy=remedy)


def engine_has_room(draft: Draft) -> Iterator[Finding]:
    """The longest sequence of training and of evaluation fits into the engine's context."""
    rollout, measured = draft.sections.get("rollout"), draft.sections.get("eval")
    if rollout is None or rollout.backend not in ("vllm", "vllm-server") or rollout.engine.max_model_len is None:
        return
    key, new = "rollout.max_new_tokens", rollout.max_new_tokens
    if measured is not None and measured.tasks and (measured.max_new_tokens or 0) > new:
        key, new = "eval.max_new_tokens", measured.max_new_tokens
    needed = rollout.max_prompt_tokens + new
    if rollout.engine.max_model_len < needed:
        found = f"is {rollout.engine.max_model_len}, less than rollout.max_prompt_tokens + {key} = {needed}"
        remedy = f"give at least {needed}, or null"
        yield Finding("rollout.engine.max_model_len", found, remedy=remedy, rests_on=(key,))


def vllm_can_sample_so(draft: Draft) -> Iterator[Finding]:
    """A temperature that vLLM neither changes nor refuses."""
    rollout = draft.sections.get("rollout")
    if rollout is None or rollout.backend == "transformers" or rollout.temperature == 0.0:
        return
    low, high = VLLM_TEMPERATURES
    if not low <= rollout.temperature <= high:
        found = f"is {rollout.temperature:g} for backend {rollout.backend}"
        remedy = "give one of these, or set rollout.backend=transformers"
        yield Finding("rollout.temperature", found, f"{low:g} to {high:g}", remedy, rests_on=("rollout.backend",))


def importance_weights_apply(draft: Draft) -> Iterator[Finding]:
    """Weights for samples of another program are not set where the policy's own module samples."""
    rollout = draft.sections.get("rollout")
    if draft.method != "rlsp" or rollout is None or rollout.backend != "transformers":
        return
    for name in (name for name in draft.train() if name.startswith("vllm_importance_sampling")):
        found = "has no effect for backend transformers, whose samples are the policy's own"
        remedy = "remove it, or set rollout.backend=vllm or vllm-server"
        yield Finding(f"train.{name}", found, remedy=remedy, rests_on=("rollout.backend",))


def backends_read_it(draft: Draft) -> Iterator[Finding]:
    """What only TRL's own sampling reads is not set where one of our backends samples."""
    rollout = draft.sections.get("rollout")
    if draft.method != "rlsp" or rollout is None or rollout.backend == "trl-vllm":
        return
    for name, nothing in (("repetition_penalty", (1.0, None)), ("generation_kwargs", (None, {}))):
        value = draft.train().get(name)
        if value not in nothing:
            found = f"is {value!r}, which backend {rollout.backend} does not read"
            yield Finding(f"train.{name}", found, remedy="remove it", rests_on=("rollout.backend",))


def others_wait_as_long(draft: Draft) -> Iterator[Finding]:
    """While one process waits for servers, the others wait for it: `train.ddp_timeout`, and no longer."""
    rollout, launch = draft.sections.get("rollout"), draft.sections.get("launch")
    if draft.method != "rlsp" or rollout is None or launch is None:
        return
    patience = schema.ddp_timeout_s(draft.train())
    if rollout.backend == "vllm-server" and launch.processes > 1 and rollout.servers.wait_s >= patience:
        found = f"is {rollout.servers.wait_s:g}, and processes wait for each other no longer than {patience:g} s"
        remedy = "lower it, or set train.ddp_timeout above it"
        yield Finding("rollout.servers.wait_s", found, remedy=remedy, rests_on=("train.ddp_timeout",))


def server_flags_are_free(draft: Draft) -> Iterator[Finding]:
    """No flag that `rltoolkit serve` sets itself."""
    rollout = draft.sections.get("rollout")
    for flag in rollout.engine.args if rollout is not None else ():
        name = flag.partition("=")[0].replace("_", "-")
        if name in SERVER_FLAGS:
            instead = SERVER_FLAGS[name]
            remedy = f"set {instead}" if instead else "remove it: sampling and sync rest on its value"
            yield Finding("rollout.engine.args", f"has {name}, which `rltoolkit serve` sets", remedy=remedy)


def devices_fit(draft: Draft) -> Iterator[Finding]:
    """Every device serves once, and each server has as many as share a model."""
    rollout, key = draft.sections.get("rollout"), "rollout.servers.devices"
    if rollout is None or not rollout.servers.devices:
        return
    devices, shared = rollout.servers.devices, rollout.engine.tensor_parallel
    if min(devices) < 0 or len(set(devices)) < len(devices):
        yield Finding(key, f"is {list(devices)}", "numbers of GPUs, each once", "such as [0, 1]")
    elif len(devices) % shared:
        found = f"names {len(devices)} GPUs, no multiple of rollout.engine.tensor_parallel, which is {shared}"
        remedy = "name as many as the servers can share evenly"
        yield Finding(key, found, remedy=remedy, rests_on=("rollout.engine.tensor_parallel",))


RULES: tuple[Rule, ...] = (
    method_needs,
    one_train_section,
    quantization_needs_lora,
    quantization_is_for_sft,
    cpu_precision,
    one_precision,
    sampling_is_scored,
    exploration_fits,
    decoupled_has_two_streams,
    lora_critic_needs_lora,
    files_exist,
    launch_fits,
    columns_are_named,
    servers_are_named,
    server_urls_are_right,
    backend_fits,
    engine_fits,
    engine_has_room,
    vllm_can_sample_so,
    importance_weights_apply,
    backends_read_it,
    others_wait_as_long,
    server_flags_are_free,
    devices_fit,
)
# Whoever starts the servers does not need to be told where they are.
SERVING_RULES: tuple[Rule, ...] = tuple(rule for rule in RULES if rule is not servers_are_named)
