"""RLSPTrainer: PPO with a critic on TRL's GRPOTrainer (Ye et al., arXiv 2502.06773).

GRPOTrainer keeps the prompts, generation, reward functions, log-probabilities, minibatches and checkpoints. Here its
results are wrapped: a rollout gets values, per-token rewards and advantages of shape (B, T), and the loss is that of
PPO. The private names of TRL used here are listed and checked in tests/contract/test_trl_surface.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import GRPOTrainer

from reward_models.exploration import ExplorationReward
from reward_models.exploration_func import as_exploration_func
from reward_models.verdict import Verifier
from rltoolkit.rlsp.advantages import Moments
from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.critics.critic import (
    SharedCritic,
    attach_critic,
    frozen_copy,
    hide_critic,
    is_critics,
    parameters_by_owner,
    set_apart,
    split_state,
)
from rltoolkit.rlsp.critics.files import load_critic, save_critic
from rltoolkit.rlsp.critics.start import critic_on, refuse_other_tokens, separate_critic
from rltoolkit.rlsp.curriculum import PromptCurriculum, curriculum_for
from rltoolkit.rlsp.empty import stand_in
from rltoolkit.rlsp.exploration_weight import ExplorationWeight
from rltoolkit.rlsp.forward import score, score_labelled_only
from rltoolkit.rlsp.in_flight import InFlight
from rltoolkit.rlsp.passes import Passes
from rltoolkit.rlsp.refusals import refuse_two_critics, refuse_what_cannot_work
from rltoolkit.rlsp.rewards.guard import UnscorableRollouts, finite_or_nan, guarded, tell_failures
from rltoolkit.rlsp.rewards.scoring import ResponseFacts, RewardCallable, as_outcome_function, describe, stream_scores
from rltoolkit.rlsp.sampler_gap import SamplerGap
from rltoolkit.rlsp.sampling import sample_from
from rltoolkit.rlsp.schedule import EpochSeededSampler, RolloutSchedule
from rltoolkit.rlsp.state import Remembering, load_state, save_state
from rltoolkit.rlsp.streams import estimate, outcome_rate
from rltoolkit.rlsp.update import TOKENS, minibatch_loss, token_sums
from rltoolkit.rlsp.watch.alarm import HackingAlarm
from rltoolkit.rlsp.watch.observe import Rollout
from rltoolkit.rlsp.watch.observer import Observer
from rltoolkit.rlsp.watch.signs import Backtracking
from rltoolkit.rollout.base import RolloutBackend
from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.run.samples import SampleRow

__all__ = ["RLSPTrainer"]

SampleSink = Callable[[int, int, Sequence[SampleRow]], None]


class RLSPTrainer(GRPOTrainer):
    """Trains a policy and a critic with PPO on an outcome reward and an exploration reward, kept apart.

    `model` is a name, a folder or a model. `outcome_reward` is a verifier, a TRL reward function or
    a reward model (name, folder or a sequence classifier with one label),
    `exploration_reward` an ExplorationReward or a TRL reward function with values in [0, 1], or None.
    The dataset has a column `prompt` and the reference column that the verifier reads (`answer`).
    `critic` is a module (input_ids, attention_mask) -> values (B, T), or (B, T, 2) for decoupled advantages; None
    makes the kind that `args.critic` names.
    Responses come from TRL (its `use_vllm` or `generate`), or from the attribute `rollout_backend` where it is set: a
    backend in each process, which is woken and given the policy's weights before every rollout and sleeps after it.
    Where that backend is not the trained module itself, TRL's `vllm_importance_sampling_*` options apply to it.
    `sample_sink(step, rank, rows)` receives every rollout. `alarm` watches for reward hacking; it learns of held-out
    rates from `evaluate`, or from who measures them (`alarm.judge`, on every rank). `backtracking` says by which
    phrases a response turns back, for languages other than English.

    Raises ModelError, DataError or ValueError before training for what cannot work.
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        outcome_reward: Verifier | RewardCallable | str | PreTrainedModel,
        exploration_reward: ExplorationReward | RewardCallable | None = None,
        args: RLSPConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        critic: nn.Module | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        *,
        sample_sink: SampleSink | None = None,
        alarm: HackingAlarm | None = None,
        backtracking: Backtracking | None = None,
    ) -> None:
        args = args if args is not None else RLSPConfig(output_dir="runs/rlsp")
        refuse_what_cannot_work(model, exploration_reward, args)
        refuse_two_critics(critic, args)
        policy = _load(model, args) if isinstance(model, str) else model
        if critic is None and args.critic == "separate":
            critic = separate_critic(policy, args)
        reference = frozen_copy(policy) if args.kl_coef > 0 and peft_config is None else None

        self.alarm = alarm if alarm is not None else HackingAlarm()
        self._backtracking = backtracking if backtracking is not None else Backtracking()
        self._sample_sink = sample_sink
        self._outcome_function = as_outcome_function(outcome_reward)
        self.curriculum: PromptCurriculum | None = None
        self._own_parts(args)
        functions: list[Any] = [guarded(self._outcome_function, "outcome")]
        if exploration_reward is not None:
            exploring = self._as_exploration_function(exploration_reward)
            functions.append(guarded(exploring, "exploration", within=(0.0, 1.0)))
        # With adapters TRL takes the policy without them as the reference, when beta is set at this point.
        # Without, the reference is the copy made above: TRL would load it from the name in the model's config, which
        # for a model trained in memory is not the model that training starts from.
        args.beta = 0.0 if peft_config is None else args.kl_coef
        super().__init__(
            model=policy,
            reward_funcs=functions,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            peft_config=peft_config,
        )
        args.beta = 0.0
        self._use_reference(reference)
        critic = critic if critic is not None else critic_on(self._base_model(), args)
        refuse_other_tokens(critic, len(self._tokenizer), args.max_completion_length)
        score_labelled_only(self._base_model())
        attach_critic(self._base_model(), critic)
        if self.use_vllm:
            hide_critic(self.vllm_generation)
        self.add_callback(RolloutSchedule(self))
        if isinstance(self.train_dataset, Dataset):
            args.require_prompts(len(self.train_dataset))
        self.curriculum = curriculum_for(args, self.train_dataset, self._outcome_function)
        if self.curriculum is not None:
            self._remembering["prompt_curriculum"] = self.curriculum

    # ---- set-up -------------------------------------------------------------------------------------------------

    def _own_parts(self, args: RLSPConfig) -> None:
        """What TRL's constructor does not need, but may already call."""
        self.sampler: EpochSeededSampler | None = None
        self.rollout_backend: RolloutBackend | None = None
        self._sampler_gap = SamplerGap(self)
        self._observer = Observer(self, self.alarm)
        self._passes = Passes(self)
        self._reward_parts: Tensor | None = None
        self._facts: list[ResponseFacts] = []
        self._empty_rows: list[int] = []
        self._tokens_to_learn = 0.0
        self.in_flight = InFlight()
        self._unscorable = UnscorableRollouts()
        self._exploration_weight = ExplorationWeight(args)
        self._remembering: dict[str, Remembering] = {
            "hacking_alarm": self.alarm,
            "unscorable_rollouts": self._unscorable,
        }
        if args.advantage == "decoupled":
            self._remembering["exploration_weight"] = self._exploration_weight

    def _as_exploration_function(self, reward: ExplorationReward | RewardCallable) -> RewardCallable:
        if not isinstance(reward, ExplorationReward):
            return reward
        # Not tied to the outcome: `stream_scores` gates, and the samples keep what the effort alone was worth.
        return as_exploration_func(reward, decode=lambda ids: self._tokenizer.decode(ids, skip_special_tokens=True))

    def _use_reference(self, reference: PreTrainedModel | None) -> None:
        self.beta = self.args.kl_coef  # makes TRL compute reference log-probs; its own KL loss is never run
        if reference is None:
            return
        from trl.trainer.utils import add_fused_lm_head

        cast = self.args.cast_lm_head_to_fp32
        add_fused_lm_head(reference, temperature=self.temperature, cast_lm_head_to_fp32=cast)
        score_labelled_only(reference)
        self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)

    def _base_model(self) -> PreTrainedModel:
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def critic(self) -> nn.Module:
        """The critic inside the model."""
        model = self.accelerator.unwrap_model(self.model)
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        critic: nn.Module = base.critic
        return critic

    def policy_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters that are not the critic's."""
        return parameters_by_owner(self.model)[0]

    def critic_warming_up(self, global_step: int) -> bool:
        """Whether only the critic learns in the update that follows `global_step` updates."""
        return bool(self.args.rollouts_begun(global_step) < self.args.critic_warmup_rollouts)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimiser, with the critic's parameters moved to groups of their own learning rate."""
        made_here = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if made_here:
            set_apart(optimizer, parameters_by_owner(self.model)[1], self.args.critic_learning_rate)
        return optimizer

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        self.sampler = EpochSeededSampler(
            data_source=dataset if dataset is not None else self.train_dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.prompts_per_rollout,
            repeat_count=self.args.micro_steps_per_rollout,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )
        return self.sampler

    # ---- rollout ------------------------------------------------------------------------------------------------

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> Any:
        """Ask our rollout backend where there is one; TRL's three ways otherwise."""
        ids, logps = self._sample(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)
        self._empty_rows = stand_in(ids, logps, (*self.eos_token_ids, self._tokenizer.pad_token_id)[0])
        self._log_metric("completions/empty", len(self._empty_rows) / max(1, len(ids)))
        return ids, logps

    def _sample(
        self,
        prompt_ids: list[list[int]],
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        has_tool_images: bool,
    ) -> Any:
        if self.rollout_backend is None:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        self._sampler_gap.refuse_what_cannot_hold(elsewhere=self._sampled_elsewhere())
        return sample_from(self.rollout_backend, self, prompt_ids)

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Sequence[Any], completion_ids_list: Sequence[Any]
    ) -> Tensor:
        """Keep the parts: columns outcome and exploration, of this process, and what is known of each response."""
        gathered = finite_or_nan(super()._calculate_rewards(inputs, prompts, completions, completion_ids_list))
        tell_failures(self.reward_funcs)
        start = self.accelerator.process_index * len(prompts)
        self._reward_parts = gathered[start : start + len(prompts)].clone()
        self._reward_parts[self._empty_rows] = torch.nan  # nothing was said that could be scored
        self._facts = describe(completions, self._outcome_function, paper=self.args.paper_compat)
        return gathered

    @torch.no_grad()
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's rollout, with old log-probs, values, returns and advantages (B, T), zero where nothing counts."""
        self._passes.rollout_begins()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        parts = self._reward_parts
        if parts is None:
            raise RuntimeError("TRL did not call _calculate_rewards during the rollout; this TRL is not supported")
        outcome, exploration = parts[:, 0], parts[:, 1] if parts.size(1) > 1 else None
        scores = stream_scores(outcome, exploration, self._facts, self.args)
        total = scores.sum(1)

        mask = output["completion_mask"]
        if "tool_mask" in output:
            mask = mask * output["tool_mask"]
        mask = mask.index_fill(0, torch.tensor(self._empty_rows, dtype=torch.long, device=mask.device), 0)
        elsewhere = self._sampled_elsewhere()
        logps_needed = elsewhere or self.args.kl_coef > 0
        old_logps, values = self._passes.sampler_scored(output, logps_needed=logps_needed)
        if elsewhere:
            self._sampler_gap.correct(output, old_logps, mask, self._metrics[self._mode])
        mask = mask * (~total.isnan()).unsqueeze(1).to(mask.dtype)  # unscorable: left out of loss and whitening
        ref_logps = output.get("ref_per_token_logps")
        weight = self._weigh_exploration(outcome)
        worth = estimate(
            scores, old_logps, ref_logps, values, mask, self.args, self._over_ranks, exploration_weight=weight
        )
        advantages, further = worth.advantages, dict(worth.metrics)
        here = torch.stack([mask.sum(), (~total.isnan()).sum()])
        tokens, scored = self.accelerator.gather(here).view(-1, 2).sum(0)
        if self.model.training:
            self._unscorable.count(tokens.item(), scored.item(), outcome, exploration)
        if self.model.training and self.curriculum is not None:
            weights = self.curriculum.take_in(inputs, outcome, self.accelerator.gather)
            advantages = advantages * weights.unsqueeze(1)  # weighs the policy's loss, which is linear in them
            further |= self.curriculum.metrics()
        output.update(
            advantages=advantages,
            returns=worth.returns,
            old_values=values,
            loss_mask=mask,
            num_items_in_batch=tokens,
        )
        signs = [self._backtracking.signs(fact.text) for fact in self._facts]
        self._observer.see(Rollout(output, total, outcome, exploration, self._facts, signs, mask), further)
        return output

    @property
    def _mode(self) -> str:
        """Where TRL collects metrics now."""
        return "train" if self.model.training else "eval"

    def _sampled_elsewhere(self) -> bool:
        """Whether a backend other than the trained module itself drew the responses."""
        backend = self.rollout_backend
        if backend is None:
            return False
        own = self.accelerator.unwrap_model(self.model)
        return not (isinstance(backend, TransformersBackend) and backend.model is own)

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **further: Any,
    ) -> Any:
        """Where TRL asks for the log-probs of a rollout, of policy and reference: the policy's bring the values."""
        if compute_entropy or any(value is not None and value is not False for value in further.values()):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **further
            )
        return self._passes.logps(model, input_ids, attention_mask, logits_to_keep), None, None

    def _weigh_exploration(self, outcome: Tensor) -> float:
        """The weight of the exploration stream for a rollout with these outcomes; an evaluation does not move it."""
        if self.args.advantage == "decoupled" and self.model.training:
            self._exploration_weight.require_rates(outcome, self.accelerator.gather, self.reward_func_names[0])
            self._exploration_weight.observe(
                outcome_rate(outcome, self._over_ranks),
                progress=self.args.progress_at(self.state.global_step, self.state.max_steps),
                learning=not self.critic_warming_up(self.state.global_step),
            )
            for name, value in self._exploration_weight.metrics().items():
                self._metrics[self._mode][name].append(value)
        return self._exploration_weight.weight

    def _over_ranks(self, moments: Moments) -> Moments:
        summed = self.accelerator.reduce(torch.stack(moments), reduction="sum")
        return Moments(*summed.unbind())

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """The Trainer's own; the alarm hears what the responses were worth."""
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        self._observer.judge(metric_key_prefix)
        return output

    # ---- update -------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Clipped policy and value losses: sums over response tokens, divided by those of an average update.

        Rows of similar length go through the models together. In training every part but the last has its backward
        pass here, so that the activations of one part are held at a time; the caller's backward pass is the last's.
        """
        parts = self._passes.parts(inputs)
        learning = self.model.training and torch.is_grad_enabled()
        sums: list[dict[str, Tensor]] = []
        done: Tensor | float = 0.0
        for part in parts[:-1]:
            with self.accelerator.no_sync(model):  # ranks may differ in parts; the last one's backward pass syncs
                loss = self._loss_of_part(model, part, sums)
                if learning:
                    self.accelerator.backward(loss)
            done += loss.detach()
        loss = self._loss_of_part(model, parts[-1], sums)
        self._log_update(sums)
        return loss + done

    def _loss_of_part(self, model: nn.Module, inputs: dict[str, Any], sums: list[dict[str, Tensor]]) -> Tensor:
        warming_up = self.model.training and self.critic_warming_up(self.state.global_step)
        if isinstance(self.critic, SharedCritic):
            self.critic.trains_trunk = not warming_up
        with self.accelerator.autocast():
            scored = score(model, inputs)
        losses = minibatch_loss(
            scored,
            inputs,
            clip_low=self.epsilon_low,
            clip_high=self.epsilon_high,
            clip_value=self.args.cliprange_value,
        )
        sums.append(token_sums(losses.logged, inputs["loss_mask"]))
        # Multiplied, not left out: with several processes every parameter must take part in the backward pass.
        total = losses.policy * (0.0 if warming_up else 1.0) + self.args.vf_coef * losses.value
        loss: Tensor = total / self._tokens_per_update(inputs)
        return loss

    def _tokens_per_update(self, inputs: dict[str, Any]) -> Tensor:
        """Response tokens that one update sees on average, per process: equal for 1 x 8 and 8 x 1 rows."""
        tokens: Tensor = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if self.model.training:
            tokens = tokens * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return tokens

    def _log_update(self, sums: list[dict[str, Tensor]]) -> None:
        names = list(sums[0])
        added = torch.stack([torch.stack([part[name] for part in sums]).sum() for name in names])
        totals = dict(zip(names, self.accelerator.reduce(added, reduction="sum").tolist(), strict=True))
        tokens = totals.pop(TOKENS)
        if self.model.training:
            self._tokens_to_learn += tokens
        for name, total in totals.items():
            if tokens > 0:
                self._metrics[self._mode][name].append(total / tokens)

    def nothing_to_learn(self) -> bool:
        """Whether no token of an update's responses counts, on any rank; asked once, before the optimiser's step."""
        nothing, self._tokens_to_learn = self._tokens_to_learn == 0, 0.0
        self._metrics["train"]["updates_skipped"].append(float(nothing))
        return nothing

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the critic's learning rate and the alarm to what the Trainer logs."""
        if self.model.training and self.optimizer is not None and "learning_rate" in logs:
            logs["critic_learning_rate"] = self.optimizer.param_groups[-1]["lr"]
        self._observer.add_to(logs)
        super().log(logs, start_time)

    # ---- files --------------------------------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The policy alone, so that the folder loads everywhere; the critic in a folder beside it."""
        folder = Path(output_dir if output_dir is not None else self.args.output_dir)
        policy, critic = split_state(state_dict if state_dict is not None else self.model.state_dict())
        super()._save(str(folder), state_dict=policy)
        save_critic(folder, self.critic, critic)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_critic(Path(resume_from_checkpoint), self.critic)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        load_critic(Path(self.state.best_model_checkpoint), self.critic)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Not of the critic's weights, which come from a folder of their own right after."""
        missing = [name for name in load_result.missing_keys if not is_critics(name)]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_state(Path(checkpoint), self._remembering)
            self.in_flight.load(self, Path(checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            save_state(Path(output_dir), self._remembering)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.in_flight.save(self, Path(output_dir))
        self.accelerator.wait_for_everyone()  # a checkpoint is whole once rank 0 has written its last file


def _load(name_or_path: str, args: RLSPConfig) -> PreTrainedModel:
    options = {"dtype": torch.float32, **(args.model_init_kwargs or {})}
    return AutoModelForCausalLM.from_pretrained(name_or_path, **options)
