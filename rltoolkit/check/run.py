"""`rltoolkit check`: everything that can be known about a recipe before a weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from reward_models.gold import GoldCheck
from reward_models.pool import VerifierPool
from reward_models.verdict import Outcome
from rltoolkit.check import configs, data, plan
from rltoolkit.check.batches import sft_lines, too_few
from rltoolkit.check.hub import use_hub_or_cache
from rltoolkit.check.machine import Machine, machine_findings
from rltoolkit.check.memory import TrainPlan, estimate_memory
from rltoolkit.check.model import ModelFacts, model_facts
from rltoolkit.check.model_shape import ModelShape
from rltoolkit.check.report import CheckReport, Say
from rltoolkit.check.servers import look_at_servers
from rltoolkit.data.unreadable import unreadable_references
from rltoolkit.errors import RLToolkitError
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.paths import is_embedded, resolve_data_path
from rltoolkit.recipe.plugins import make_exploration, make_verifier
from rltoolkit.recipe.problems import RecipeError
from rltoolkit.recipe.resolve import output_dir_of, recipe_hash, samples

T = TypeVar("T")
# Gold answers that are judged; more would take minutes and hardly find more.
GOLD_ROWS = 500


def check_recipe(loaded: LoadedRecipe, say: Say, machine: Machine | None = None) -> int:
    """Check a recipe part by part; 0 if nothing is wrong as far as can be known here, 2 otherwise.

    A GPU, a hub name or vLLM that is missing here is a note, since the recipe may be meant for another machine;
    training refuses it.
    """
    look_on_hub = use_hub_or_cache() if names_the_hub(loaded) else True  # before its libraries are imported
    check = _Check(loaded, CheckReport(say), machine if machine is not None else Machine.this(), look_on_hub)
    check.start()
    facts = check.guarded(lambda: check.model(loaded.recipe.model.name_or_path))
    if facts is not None:
        check.report.part("Model", facts.lines())
        for note in facts.notes:
            check.report.note(note)
    if loaded.recipe.rollout.backend == "vllm-server" and samples(loaded.recipe):
        check.servers(facts)
    if loaded.recipe.sft is not None:
        check.supervised(facts)
    if loaded.recipe.method == "rlsp":
        check.rlsp(facts)
    check.tasks()
    return check.report.close()


def names_the_hub(loaded: LoadedRecipe) -> bool:
    """Whether a model or a dataset of the recipe is a hub name."""
    recipe = loaded.recipe
    names = [recipe.model.name_or_path]
    names += [recipe.data.train.path] if recipe.data is not None else []
    names += [recipe.sft.data.path] if recipe.sft is not None else []
    critic = recipe.train.get("critic_model_name_or_path")
    names += [critic] if isinstance(critic, str) else []
    places = [resolve_data_path(name, loaded.path) for name in names]
    return any(isinstance(place, str) and not is_embedded(place) for place in places)


@dataclass(frozen=True)
class _Check:
    """One check in progress."""

    loaded: LoadedRecipe
    report: CheckReport
    machine: Machine
    look_on_hub: bool

    def model(self, name: str) -> ModelFacts:
        """What is known of a model; see `model_facts`."""
        return model_facts(name, self.loaded, look_on_hub=self.look_on_hub)

    def guarded(self, look: Callable[[], T]) -> T | None:
        """What `look` returns; a mistake becomes a problem, a dataset out of reach a note, and both give None."""
        try:
            return look()
        except data.NotReachable as state:
            self.report.note(str(state))
        except RecipeError as error:
            for problem in error.problems:
                self.report.problem(str(problem))
        except RLToolkitError as error:
            self.report.problem(str(error))
        return None

    def start(self) -> None:
        """The recipe, the machine, and the folder that the run would write to."""
        folder = output_dir_of(self.loaded)
        self.report.part(
            f"Recipe {self.loaded.path}", [f"method: {self.loaded.recipe.method}", f"run folder: {folder}"]
        )
        for finding in machine_findings(self.loaded, self.machine):
            self.report.note(f"training would refuse it here: {self.loaded.problem(finding)}")
        self.report.part("Machine", [str(self.machine)])
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(manifest, dict) and manifest.get("recipe_hash") != recipe_hash(self.loaded.recipe):
            self.report.problem(f"{folder} holds a run of another recipe; set output_dir to another folder")
        else:
            self.report.note(f"{folder} holds a run of this recipe; training continues it")

    def servers(self, facts: ModelFacts | None) -> None:
        """The vLLM servers: one that is away may be started later, one of another kind is a problem."""
        title = f"Rollout: vllm-server, {len(self.loaded.recipe.rollout.servers.urls)} server(s)"
        if facts is None or facts.tokenizer is None:
            self.report.part(title, ["not asked: what the model is, with which theirs is compared, is not known here"])
            return
        seen = self.guarded(lambda: look_at_servers(self.loaded))
        if seen is None:
            return
        self.report.part(title, [*seen.lines, *(f"not there: {text}" for text in seen.away)] or ["none that serves"])
        for text in seen.away:
            remedy = "`rltoolkit serve` starts it; training would wait rollout.servers.wait_s for it, and then end"
            self.report.note(f"a server cannot be used now: {text}; {remedy}")
        for text in seen.wrong:
            self.report.problem(f"rollout.servers.urls: {text}")

    def supervised(self, facts: ModelFacts | None) -> None:
        """Stage one: its config, its data, its memory."""
        config = self.guarded(lambda: configs.sft_config(self.loaded, self.machine))
        length = None if config is None else config.max_length
        tokenizer = None if facts is None else facts.tokenizer
        found = self.guarded(
            lambda: data.demonstration_facts(self.loaded, tokenizer, length, look_on_hub=self.look_on_hub)
        )
        if found is not None:
            self.report.part("Demonstrations", found.lines)
        if config is None:
            return
        factors = (
            config.per_device_train_batch_size,
            self.loaded.recipe.launch.processes,
            config.gradient_accumulation_steps,
        )
        self.report.part("Batches of stage one", sft_lines(*factors))
        if facts is not None:
            longest = None if found is None else found.longest
            self._memory("Memory of stage one", facts, plan.sft_plan(self.loaded, config, facts, longest))

    def rlsp(self, facts: ModelFacts | None) -> None:
        """The RL stage: its config and batches, its data, its verifier, its memory."""
        config = self.guarded(lambda: configs.rlsp_config(self.loaded, self.machine))
        tokenizer = None if facts is None else facts.tokenizer
        found = self.guarded(lambda: data.prompt_facts(self.loaded, tokenizer, look_on_hub=self.look_on_hub))
        if found is not None:
            self.report.part("Prompts", found.lines)
        if config is not None:
            self._batches(config, None if found is None else found.rows)
        self._verifier(found)
        if config is not None and facts is not None:
            critic = self.guarded(lambda: self._critic(config, facts))
            longest = None if found is None else found.longest
            plan_ = plan.rlsp_plan(self.loaded, config, facts, None if critic is None else critic.shape, longest)
            if critic is not None:
                self._memory("Memory", facts, plan_, critic)

    def tasks(self) -> None:
        """The evaluation's tasks are known, and their data is there."""
        from eval.tasks import TASKS, load_task

        names = self.loaded.recipe.eval.tasks
        lines = []
        for name in names:
            try:
                task = load_task(name, limit=self.loaded.recipe.eval.questions)
            except RLToolkitError as error:
                (self.report.note if name in TASKS else self.report.problem)(f"eval.tasks: {error}")
                continue
            lines.append(f"{name}: {len(task.questions)} questions")
        self.report.part("Evaluation", lines or ["no task" if not names else "no task could be loaded here"])

    def _batches(self, config: Any, prompts: int | None) -> None:
        batches = plan.batches_of(self.loaded, config)
        lines = batches.lines()
        if prompts is not None:
            lines += batches.schedule(prompts, max_steps=int(config.max_steps), epochs=float(config.num_train_epochs))
        self.report.part("Batches", lines)
        findings = [*batches.findings(), *filter(None, [None if prompts is None else too_few(prompts, batches)])]
        for finding in findings:
            self.report.problem(str(self.loaded.problem(finding)))

    def _verifier(self, found: data.DataFacts | None) -> None:
        self.guarded(lambda: make_exploration(self.loaded))
        verifier = self.guarded(lambda: make_verifier(self.loaded))
        rewards = self.loaded.recipe.rewards
        if verifier is None or rewards is None or found is None:
            return
        references = found.references

        def judge() -> tuple[GoldCheck, int, str]:
            with VerifierPool(verifier, **rewards.pool.model_dump()) as pool:
                return pool.check_gold(references[:GOLD_ROWS]), *unreadable_references(pool, references)

        judged = self.guarded(judge)
        if judged is None:
            return
        result, unreadable, what = judged
        sample = f"the first {GOLD_ROWS} of {len(references)} rows were tried; {what}"
        self.report.part(
            f"Verifier {rewards.outcome.verifier}",
            [*result.lines(), *([sample] if len(references) > GOLD_ROWS else [])],
        )
        certain = len(result.certain_failures)
        refused = certain - result.outcomes[Outcome.BAD_REFERENCE]
        text = "rewards.outcome: the verifier does not accept {} gold answer(s) of data.train"
        remedy = "correct or remove these rows, or change data.train.reference or the verifier"
        if refused:
            self.report.problem(f"{text.format(refused)}; {remedy}")
        if unreadable:
            self.report.problem(f"rewards.outcome: {what}; {remedy}")
        if len(result.failures) > certain:
            doubt = "in a box; ignore this if it reads answers in another form"
            self.report.note(f"{text.format(len(result.failures) - certain)} {doubt}")

    def _critic(self, config: Any, facts: ModelFacts) -> ModelFacts:
        """What is known of the model that the critic's backbone comes from: of the policy, unless another is named.

        Raises ModelError for a saved critic that this run cannot start from.
        """
        from rltoolkit.rlsp.critics.files import fitting_form
        from rltoolkit.rlsp.critics.start import wanted_form

        name = config.critic_model_name_or_path
        if name is None:
            return facts
        width = None if facts.shape is None else facts.shape.hidden
        fitting_form(str(resolve_data_path(name, self.loaded.path)), wanted_form(config, width))
        if config.critic != "separate":
            return facts
        return model_facts(name, self.loaded, look_on_hub=self.look_on_hub, with_tokenizer=False)

    def _memory(self, title: str, facts: ModelFacts, plan_: TrainPlan, critic: ModelFacts | None = None) -> None:
        unknown = [one.place for one in (facts, critic) if one is not None and one.shape is None]
        shape: ModelShape | None = facts.shape
        if unknown or shape is None:
            self.report.note(
                f"{title.lower()} is not estimated: the shape of {' and '.join(dict.fromkeys(unknown))} is not known"
            )
            return
        estimate = estimate_memory(shape, plan_)
        lines = plan.table(estimate)
        if plan_.scores:
            lines += plan.beside_the_trainer(self.loaded.recipe.rollout, plan_.device)
        self.report.part(f"{title} (one process; libraries and fragmentation not counted)", lines)
        fits_here = (plan_.device == "cuda") == (self.machine.gpus > 0)
        if fits_here and estimate.peak_gib > self.machine.memory_gib:
            have = f"{self.machine.memory_gib:.0f} GiB"
            self.report.note(f"{title.lower()}: the estimate is above the {have} of this machine")
