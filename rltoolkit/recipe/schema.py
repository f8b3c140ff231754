"""The sections of a recipe: one class each; a field's description is what an error message adds as help.

To add a method: write the classes of its own sections here, give them a field in `Recipe`, and an entry in
`METHODS`. To add an option: add a field. Nothing else lists the keys; those of verifiers and exploration rewards stand
in `plugin_options`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from reward_models.pool import MAX_MEMORY_MB, MAX_TIMEOUT_S, MAX_WORKERS
from rltoolkit.recipe.problems import RefusedError, did_you_mean

EMBEDDED_DATA = ("embedded:countdown",)
EMBEDDED_MODELS = ("embedded:countdown",)
IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class MethodSections:
    """What a method asks of a recipe: the sections it cannot do without, and how it can be launched."""

    needs: tuple[str, ...]
    trains_sharded: bool = True  # whether ZeRO-3 and FSDP, which shard the weights, work for it


METHODS: dict[str, MethodSections] = {
    "rlsp": MethodSections(needs=("data", "rewards"), trains_sharded=False),
    "sft": MethodSections(needs=("sft",)),
}


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values are not converted, objects do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _import_path_or(known: tuple[str, ...]) -> BeforeValidator:
    """A name among `known`, or an import path `package.module:Name`."""

    def check(value: object) -> object:
        if not isinstance(value, str) or value in known:
            return value
        if IMPORT_PATH.fullmatch(value):
            return value
        expected = f"{', '.join(known)} or an import path package.module:Name"
        raise RefusedError(f"is {value!r}", expected=expected, remedy=did_you_mean(value, known, "give one of these"))

    return BeforeValidator(check)


def template_fields(template: str) -> tuple[str, ...]:
    """The column names of a template such as "{question}"; raises RefusedError for anything else."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise RefusedError(
            f"is {template!r} ({error})", remedy="write {{ and }} for braces that are meant as text"
        ) from error
    names = [name for _, name, _, _ in parts if name is not None]
    for name in names:
        if not re.fullmatch(r"\w+", name) or name.isdigit():
            remedy = "write {column} for a column, {{ and }} for braces that are meant as text"
            raise RefusedError(f"names {{{name}}}", expected="column names in braces", remedy=remedy)
    if not names:
        raise RefusedError(
            f"is {template!r}",
            expected="a template over columns",
            remedy=f"write {_as_column(template)!r} or the like",
        )
    return tuple(dict.fromkeys(names))


def _as_column(word: str) -> str:
    return f"{{{word}}}" if re.fullmatch(r"\w+", word) else "{question}"


def _template(value: object) -> object:
    if isinstance(value, str):
        template_fields(value)
    return value


def _column_or_template(value: object) -> object:
    """A bare column name becomes the template of that column."""
    if isinstance(value, str) and re.fullmatch(r"\w+", value):
        return _as_column(value)
    return _template(value)


def list_to_tuple(value: object) -> object:
    """YAML gives lists; frozen objects hold tuples."""
    return tuple(value) if isinstance(value, list) else value


def _text(value: str) -> str:
    if not value.strip():
        raise RefusedError("is empty", expected="a text")
    return value


Text = Annotated[str, BeforeValidator(lambda value: _text(value) if isinstance(value, str) else value)]
Template = Annotated[str, BeforeValidator(_template)]
Texts = Annotated[tuple[str, ...], BeforeValidator(list_to_tuple)]


# --- model -------------------------------------------------------------------------------------------------


def _target_modules(value: object) -> object:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(value, str) and value.strip():
        return value
    raise RefusedError(
        f"is {value!r}", expected="all-linear or a list of module names", remedy="such as [q_proj, v_proj]"
    )


class LoraSection(Section):
    """Low-rank adapters instead of full fine-tuning."""

    r: Annotated[int, Field(ge=1, description="rank of the adapters")] = 16
    alpha: Annotated[int, Field(ge=1, description="adapters are scaled by alpha / r")] = 32
    dropout: Annotated[float, Field(ge=0.0, lt=1.0, description="dropout on the adapter's input")] = 0.0
    target_modules: Annotated[str | tuple[str, ...], BeforeValidator(_target_modules)] = "all-linear"


class ModelSection(Section):
    """The policy to train."""

    name_or_path: Annotated[Text, Field(description="a folder, a hub name or embedded:countdown")]
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    lora: LoraSection | None = None
    quantization: Literal["4bit", "8bit"] | None = None
    attn_implementation: Text | None = None


# --- data --------------------------------------------------------------------------------------------------


def groups_of(pattern: str) -> int:
    """The number of groups in a regular expression; raises RefusedError for a text that is none."""
    try:
        return re.compile(pattern).groups
    except re.error as error:
        remedy = "check its brackets and backslashes"
        raise RefusedError(f"is no regular expression ({error})", remedy=remedy) from error


def one_group_pattern(value: object) -> object:
    """A regular expression with exactly one group; raises RefusedError for other texts."""
    if isinstance(value, str) and (groups := groups_of(value)) != 1:
        raise RefusedError(f"has {groups} groups", expected="exactly one group (...) around the answer")
    return value


class Reference(Section):
    """Where the gold answer stands: a column, or the one group of a pattern in it (the last match counts)."""

    column: Text
    pattern: Annotated[str | None, BeforeValidator(one_group_pattern)] = None


def _reference(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


class DataSource(Section):
    """A dataset: a local file, a hub name, or an embedded world, whose columns and answers are known."""

    path: Annotated[Text, Field(description="a .jsonl, .json, .parquet or .csv file, a hub name or embedded:countdown")]
    split: Text = "train"
    prompt: Annotated[Template | None, Field(description="a template over columns, such as '{question}'")] = None
    format: Literal["chat", "text"] = "chat"
    system: str | None = None
    limit: Annotated[int | None, Field(ge=1, description="use only the first rows")] = None


class RlDataSource(DataSource):
    """Prompts with a gold answer that a verifier reads."""

    reference: Annotated[
        Reference | None,
        BeforeValidator(_reference),
        Field(description="the gold answer's column, or {column: answer, pattern: '#### (.+)'}"),
    ] = None


class SftDataSource(DataSource):
    """Prompts with the completion to imitate."""

    completion: Annotated[
        str | None,
        BeforeValidator(_column_or_template),
        Field(description="the column or template of the text to imitate"),
    ] = None


class DataSection(Section):
    """What is trained on."""

    train: RlDataSource


# --- rewards -----------------------------------------------------------------------------------------------

VERIFIERS = (
    "math",
    "countdown",
    "integer",
    "exact",
    "regex",
    "choice",
    "numeric",
    "json_schema",
    "all_of",
    "any_of",
)
EXPLORATIONS = ("none", "length", "distinct_steps", "judge")


class Plugin(Section):
    """A section with the options of what it names beside it: `options` is every further key."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for the constructor of what is named."""
        return dict(self.model_extra or {})


class OutcomeSection(Plugin):
    """Who judges the answer."""

    verifier: Annotated[Text, _import_path_or(VERIFIERS)]


class ExplorationSection(Plugin):
    """What pays for effort, right or wrong."""

    kind: Annotated[Text, _import_path_or(EXPLORATIONS)]


class PoolSection(Section):
    """The processes that verifiers run in: the arguments of `VerifierPool`."""

    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS, description="processes per rank")] = 2
    timeout_s: Annotated[
        float, Field(gt=0.0, le=MAX_TIMEOUT_S, description="seconds after which a check is killed")
    ] = 5.0
    memory_mb: Annotated[
        int | None, Field(ge=1, le=MAX_MEMORY_MB, description="address space of one process, null for no limit")
    ] = 2048
    start_timeout_s: Annotated[
        float, Field(gt=0.0, le=MAX_TIMEOUT_S, description="seconds for a process to load the verifier")
    ] = 60.0


class RewardsSection(Section):
    """The two rewards of RLSP, kept apart."""

    outcome: OutcomeSection
    exploration: ExplorationSection | None = None
    pool: PoolSection = PoolSection()


# --- the rest ----------------------------------------------------------------------------------------------


def _without_last_slash(value: object) -> object:
    """http://host:1/ and http://host:1 are the same address."""
    if isinstance(value, list):
        return tuple(item.rstrip("/") if isinstance(item, str) else item for item in value)
    return value


Urls = Annotated[tuple[str, ...], BeforeValidator(_without_last_slash)]
Ints = Annotated[tuple[int, ...], BeforeValidator(list_to_tuple)]


class EngineSection(Section):
    """vLLM's own settings, in this process (backend vllm) and in the servers that `rltoolkit serve` starts."""

    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", "auto"] | None, Field(description="null means model.dtype")
    ] = None
    gpu_memory_utilization: Annotated[
        float | None,
        Field(
            gt=0.0, le=1.0, description="fraction of a GPU that vLLM takes, null for 0.3 in process, 0.9 on a server"
        ),
    ] = None
    max_model_len: Annotated[int | None, Field(ge=1, description="longest sequence, null for the model's own")] = None
    tensor_parallel: Annotated[int, Field(ge=1, description="GPUs that share one copy of the model")] = 1
    enforce_eager: Annotated[bool, Field(description="no compilation: starts sooner, samples more slowly")] = False
    sleep: Annotated[bool, Field(description="in process: give GPU memory back while training")] = True
    cpu_cache_gib: Annotated[int, Field(ge=1, description="GiB of KV cache on a CPU")] = 1
    args: Annotated[Texts, Field(description="further flags of vLLM's server, one text each")] = ()


class ServersSection(Section):
    """The vLLM servers that backend vllm-server asks, and how `rltoolkit serve` starts them."""

    urls: Annotated[Urls, Field(description="such as [http://127.0.0.1:8100], as `rltoolkit serve` prints them")] = ()
    request_timeout_s: Annotated[float, Field(gt=0.0, description="seconds that one request may take")] = 600.0
    retries: Annotated[int, Field(ge=0, description="times that a failed request is asked again")] = 3
    wait_s: Annotated[float, Field(ge=0.0, description="seconds that all servers may be away")] = 300.0
    health_timeout_s: Annotated[float, Field(gt=0.0, description="seconds without an answer: the server hangs")] = 30.0
    concurrency: Annotated[
        int, Field(ge=1, description="requests at once on each server; vLLM queues what it cannot run")
    ] = 256
    weights_dir: Annotated[
        Text | None,
        Field(
            description="folder for weights that trainer and servers both see, null for rollout/ in the run's folder"
        ),
    ] = None
    host: Annotated[
        Text, Field(description="address that `rltoolkit serve` binds; who reaches it can replace the model")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="port of the first server, the next takes port + 1")] = 8100
    devices: Annotated[Ints | None, Field(description="GPUs to serve on, null for all, [] for the CPU")] = None
    python: Annotated[Text | None, Field(description="interpreter with vLLM, null for the one that runs this")] = None
    start_timeout_s: Annotated[float, Field(gt=0.0, description="seconds for a server to load")] = 600.0


class RolloutSection(Section):
    """How the policy is sampled."""

    backend: Annotated[
        Literal["transformers", "vllm", "vllm-server", "trl-vllm"],
        Field(description="vllm: in this process; vllm-server: over HTTP; trl-vllm: TRL's own, for rlsp on a GPU"),
    ] = "transformers"
    temperature: Annotated[float, Field(ge=0.0, description="of sampling and of scoring alike")] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[int, Field(ge=0, description="0 keeps every token")] = 0
    min_p: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 512
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    engine: EngineSection = EngineSection()
    servers: ServersSection = ServersSection()


class SftSection(Section):
    """Stage one: imitation of demonstrations."""

    data: SftDataSource
    train: Annotated[dict[str, Any], Field(description="fields of trl.SFTConfig")] = Field(default_factory=dict)
    until_accuracy: Annotated[float | None, Field(gt=0.0, lt=1.0, description="stop at this held-out accuracy")] = None


class EvalSection(Section):
    """What is measured before, during and after training."""

    tasks: Texts = ()
    every_steps: Annotated[int | None, Field(ge=1)] = None
    questions: Annotated[int | None, Field(ge=1, description="use only the first questions of a task")] = None
    samples: Annotated[int, Field(ge=1, description="answers per question at temperature 1")] = 1
    max_new_tokens: Annotated[int | None, Field(ge=1, description="null means rollout.max_new_tokens")] = None


def ddp_timeout_s(train: Mapping[str, Any]) -> float:
    """How long one process waits for another: `train.ddp_timeout`, or the Trainer's own default.

    A value that is none is not refused here, but where all settings of the Trainer are.
    """
    given = train.get("ddp_timeout")
    return given if isinstance(given, int | float) and given > 0 else 1800.0


class LaunchSection(Section):
    """How `rltoolkit train` starts the run."""

    processes: Annotated[int, Field(ge=1)] = 1
    accelerate_config: Annotated[Text | None, Field(description="a file such as recipes/accelerate/zero3.yaml")] = None


def _method(value: object) -> object:
    if isinstance(value, str) and value not in METHODS:
        known = ", ".join(METHODS)
        raise RefusedError(f"is {value!r}", expected=known, remedy=did_you_mean(value, METHODS, f"give one of {known}"))
    return value


class Recipe(Section):
    """A whole run."""

    method: Annotated[str, BeforeValidator(_method), Field(description=" or ".join(METHODS))]
    model: ModelSection
    data: DataSection | None = None
    rewards: RewardsSection | None = None
    rollout: RolloutSection = RolloutSection()
    train: Annotated[dict[str, Any], Field(description="fields of the method's config class")] = Field(
        default_factory=dict
    )
    sft: SftSection | None = None
    eval: EvalSection = EvalSection()
    launch: LaunchSection = LaunchSection()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    output_dir: Text | None = None
