"""What every phase of a run is given: the checked recipe, the folder, the tokenizer, the tasks and the samplers."""

import gc
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from rich.console import Console
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from eval.tasks import Task, load_task
from rltoolkit.data.tokenizer import load_tokenizer
from rltoolkit.recipe import LoadedRecipe, Recipe, RecipeError, output_dir_of, recipe_hash, resolved_dict
from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.paths import is_embedded, resolve_data_path
from rltoolkit.recipe.problems import RefusedError
from rltoolkit.recipe.resolve import samples
from rltoolkit.recipe.schema import ddp_timeout_s
from rltoolkit.rollout.choose import Rollouts
from rltoolkit.run.folder import RunFolder
from rltoolkit.run.metrics import MetricsWriter

__all__ = [
    "Run",
    "begin_run",
    "free_memory",
    "lora_config",
    "model_options",
    "prepare_run",
    "resolved_model",
    "start_name",
    "trainer_options",
]


@dataclass(frozen=True)
class Run:
    """What every phase needs."""

    loaded: LoadedRecipe
    folder: RunFolder
    metrics: MetricsWriter
    model_name: str
    """Folder, hub name or embedded world, with variables expanded and relative folders found."""
    tokenizer: PreTrainedTokenizerBase
    tasks: tuple[Task, ...]
    console: Console
    rollouts: Rollouts
    """Samplers by `rollout.backend`; closed by who runs the recipe."""

    @property
    def recipe(self) -> Recipe:
        """The checked recipe."""
        return self.loaded.recipe

    @property
    def state(self) -> PartialState:
        """The processes of this run."""
        return PartialState()

    def is_done(self, phase: str) -> bool:
        """Whether an earlier start finished the phase; all processes look before any goes on."""
        done = self.folder.is_done(phase)
        self.state.wait_for_everyone()
        return done

    def say(self, text: str) -> None:
        """Tell the user, once."""
        if self.state.is_main_process:
            self.console.print(text, highlight=False, soft_wrap=True)


def prepare_run(loaded: LoadedRecipe) -> Run:
    """Check model name, tokenizer and tasks; loads no weights and writes nothing, `begin_run` does that."""
    recipe = loaded.recipe
    # The group of processes is made here, so that the Trainer's own ddp_timeout would come too late.
    patience = timedelta(seconds=ddp_timeout_s(recipe.train))
    state = PartialState(cpu=bool(recipe.train.get("use_cpu", False)), timeout=patience)
    model_name = resolved_model(loaded, "model.name_or_path", recipe.model.name_or_path)
    folder = RunFolder(output_dir_of(loaded), is_main=state.is_main_process)
    metrics = MetricsWriter(folder.metrics_path, is_main=state.is_main_process)
    tasks = tuple(_task(name, recipe) for name in recipe.eval.tasks)
    tokenizer = load_tokenizer(model_name)
    rollouts = Rollouts(
        recipe,
        tokenizer,
        start_model=start_name(model_name, folder),
        folder=folder.path,
        load=lambda name: _load(name, recipe, state.device),
        is_main=state.is_main_process,
    )
    return Run(loaded, folder, metrics, model_name, tokenizer, tasks, Console(), rollouts)


def begin_run(run: Run) -> Run:
    """Create the run folder or continue in it; called once everything is checked that needs no weights."""
    recipe = run.recipe
    with run.state.main_process_first():
        folder = RunFolder.open(run.folder.path, resolved_dict(recipe), recipe_hash(recipe), is_main=run.folder.is_main)
    run.say(f"[bold]{recipe.method}[/bold]  {run.loaded.path} -> {folder.path}{_who_samples(recipe)}")
    return replace(run, folder=folder, metrics=MetricsWriter(folder.metrics_path, is_main=folder.is_main))


def _who_samples(recipe: Recipe) -> str:
    if not samples(recipe):
        return ""
    rollout = recipe.rollout
    servers = f" ({len(rollout.servers.urls)} server(s))" if rollout.backend == "vllm-server" else ""
    return f", {rollout.backend} samples{servers}"


def resolved_model(loaded: LoadedRecipe, key: str, name: str) -> str:
    """A model's folder or hub name as `from_pretrained` takes it; RecipeError for a folder that is not there."""
    try:
        return str(resolve_data_path(name, loaded.path))
    except RefusedError as refusal:
        raise RecipeError([loaded.problem(Finding(key, refusal.found, remedy=refusal.remedy))]) from refusal


def start_name(model_name: str, folder: RunFolder) -> str:
    """The folder or hub name of the model that the run starts from; an embedded one is made in the run's folder."""
    return str(folder.path / "checkpoints" / "start") if is_embedded(model_name) else model_name


def _task(name: str, recipe: Recipe) -> Task:
    """A task, asked in the format that the policy is trained on."""
    task = load_task(name, limit=recipe.eval.questions, seed=0)
    data = recipe.data.train if recipe.data is not None else recipe.sft.data if recipe.sft is not None else None
    return task if data is None else replace(task, prompt_format=data.format)


def _load(name: str, recipe: Recipe, device: torch.device) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, **model_options(recipe))
    return model.to(device)


def trainer_options(run: Run, phase: str) -> dict[str, Any]:
    """Options of every Trainer that follow from other sections of the recipe."""
    return {
        "output_dir": str(run.folder.checkpoints_dir(phase)),
        "seed": run.recipe.seed,
    }


def model_options(recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained` from the recipe's model section."""
    dtype = recipe.model.dtype
    options: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if recipe.model.attn_implementation is not None:
        options["attn_implementation"] = recipe.model.attn_implementation
    if recipe.model.quantization is not None:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=recipe.model.quantization == "4bit",
            load_in_8bit=recipe.model.quantization == "8bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return options


def lora_config(recipe: Recipe) -> LoraConfig | None:
    """The adapters of the recipe's model section."""
    lora = recipe.model.lora
    if lora is None:
        return None
    modules = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=modules, task_type="CAUSAL_LM"
    )


def free_memory() -> None:
    """Give back what a finished phase held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
