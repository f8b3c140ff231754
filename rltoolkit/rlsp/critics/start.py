"""Which critic a run has, and where its weights start: the policy, another model, a reward model, a saved critic."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from rltoolkit.errors import ModelError
from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.critics.critic import Critic, SharedCritic
from rltoolkit.rlsp.critics.files import CriticForm, fitting_form, load_weights
from rltoolkit.rlsp.critics.lora import LoraCritic

__all__ = ["critic_from", "critic_on", "refuse_other_tokens", "separate_critic", "wanted_form"]

REWARD_MODEL = "ForSequenceClassification"


def separate_critic(policy: PreTrainedModel, args: RLSPConfig) -> Critic:
    """A critic with a backbone of its own, from the model that the config names or from the policy's."""
    name = args.critic_model_name_or_path
    if name is None:
        critic = Critic.from_policy(policy, seed=args.seed, streams=args.streams)
    else:
        critic = critic_from(name, seed=args.seed, streams=args.streams, dtype=policy.dtype)
    # In 16 bits small steps round to nothing. DeepSpeed keeps float32 weights of its own, and wants one dtype.
    return critic if args.deepspeed_plugin is not None else critic.float()


def wanted_form(args: RLSPConfig, width: int | None = None) -> CriticForm:
    """The form that a saved critic must have for a run to start from it; `width` is that of the policy, if known."""
    if args.critic == "separate":
        return CriticForm(args.critic, args.streams)
    r, alpha = (args.critic_lora_r, float(args.critic_lora_alpha)) if args.critic == "lora" else (None, None)
    return CriticForm(args.critic, args.streams, width, r, alpha)


def critic_on(base: PreTrainedModel, args: RLSPConfig) -> nn.Module:
    """A critic that uses the policy's weights: `base` is the policy, or with PEFT the model inside it."""
    critic: SharedCritic | LoraCritic
    if args.critic == "shared":
        critic = SharedCritic(base, seed=args.seed, streams=args.streams)
    else:
        r, alpha = args.critic_lora_r, args.critic_lora_alpha
        critic = LoraCritic(base, r=r, alpha=alpha, seed=args.seed, streams=args.streams)
    name = args.critic_model_name_or_path
    if name is not None:
        fitting_form(name, wanted_form(args, critic.head.hidden_size))
        load_weights(Path(name), critic)
    return critic if args.deepspeed_plugin is None else critic.to(base.dtype)


def critic_from(name_or_path: str, *, seed: int = 0, streams: int = 1, **options: Any) -> Critic:
    """A separate critic from a model's backbone with a fresh head, from a reward model with its head, or from a critic.

    A reward model is one for sequence classification with one label and a linear `score` without bias, as those of
    TRL's RewardTrainer; with two streams its head starts that of correctness. `options` go to `from_pretrained`.
    Raises ModelError for what cannot be read, and for a critic of another form.
    """
    form = fitting_form(name_or_path, CriticForm("separate", streams))
    try:
        config = AutoConfig.from_pretrained(name_or_path)
        is_reward_model = form is None and any(name.endswith(REWARD_MODEL) for name in config.architectures or ())
        kind = AutoModelForSequenceClassification if is_reward_model else AutoModel
        model = kind.from_pretrained(name_or_path, **options) if form is None else AutoModel.from_config(config)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"critic_model_name_or_path is {name_or_path}, which cannot be read: {error}; give the folder or hub name "
            "of a model, or the folder of a saved critic"
        ) from error
    critic = Critic(model.base_model, seed=seed, streams=streams)
    if form is not None:
        load_weights(Path(name_or_path), critic)
    elif is_reward_model:
        _take_score(critic, model, name_or_path)
    return critic


def refuse_other_tokens(critic: nn.Module, tokens: int, response: int = 0) -> None:
    """Raise ModelError where a critic's own backbone cannot read what the policy writes.

    It has fewer embeddings than the policy's tokenizer has `tokens`, or no position beyond a `response` of full length.
    """
    if isinstance(critic, Critic):
        if critic.positions is not None and critic.positions <= response:
            raise ModelError(
                f"the critic's backbone has learned {critic.positions} positions, and max_completion_length alone is "
                f"{response}; lower it, or give critic_model_name_or_path a model of longer texts"
            )
        known = critic.backbone.get_input_embeddings().num_embeddings
        if known < tokens:
            raise ModelError(
                f"the critic's backbone knows {known} tokens, the policy's tokenizer has {tokens}; give "
                "critic_model_name_or_path a model of the policy's own family"
            )


def _take_score(critic: Critic, model: PreTrainedModel, name: str) -> None:
    """Let the critic's first stream, that of correctness, start from what a reward model scores with."""
    score = getattr(model, "score", None)
    if not isinstance(score, nn.Linear) or [tuple(p.shape) for p in score.parameters()] != [(1, score.in_features)]:
        raise ModelError(
            f"critic_model_name_or_path is {name}, a classifier with the head {score}; give a reward model: one label, "
            "a linear layer `score` without bias"
        )
    with torch.no_grad():
        critic.head.linear.weight[0] = score.weight[0]
