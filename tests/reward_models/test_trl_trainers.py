"""Reward functions in TRL's own trainers, which really train: what cannot be judged carries no weight."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from datasets import Dataset
from misbehaving_verifiers import EvenDigits
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from reward_models import LengthExploration, Outcome, RewardFunction, VerifierPool, as_reward_func
from reward_models.exploration_func import as_exploration_func
from rltoolkit.embedded.models import countdown_model, countdown_tokenizer

TRAINERS = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}
GROUP = 4


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return countdown_tokenizer()


@pytest.fixture
def policy(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    return countdown_model(0, tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=2)


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(EvenDigits(), workers=2, timeout_s=0.3) as running:
        yield running


def rows(*, chat: bool = False) -> Dataset:
    """Four prompts; one reference cannot be read, one makes the verifier hang."""
    references = ["good", "damaged", "good", "slow"]
    prompts: list[Any] = [f"{n},{n + 1},{n + 2}>9\n" for n in range(len(references))]
    if chat:
        prompts = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return Dataset.from_list([{"prompt": p, "gold": r} for p, r in zip(prompts, references, strict=True)])


def settings(folder: Any, **options: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4 * GROUP,
        "num_generations": GROUP,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
        "max_steps": 3,
        "beta": 0.0,  # no reference model, which RLOO would look for by a name
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 3,
        **options,
    }


def watched(kind: Any, function: RewardFunction) -> tuple[Any, list[tuple[list[Outcome], list[float]]]]:
    """A trainer class that keeps, for every rollout, the outcomes and the advantages that came of them."""
    seen: list[tuple[list[Outcome], list[float]]] = []

    class Watched(kind):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            outcomes = [verdict.outcome for verdict in function.last_verdicts]
            seen.append((outcomes, output["advantages"].flatten().tolist()))
            return output

    return Watched, seen


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def logged(trainer: Any, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@pytest.mark.parametrize(
    ("name", "awaited"),
    [
        pytest.param("grpo", False, id="grpo"),
        pytest.param("rloo", False, id="rloo", marks=pytest.mark.slow),
        pytest.param("grpo", True, id="grpo-async", marks=pytest.mark.slow),
        pytest.param("rloo", True, id="rloo-async", marks=pytest.mark.slow),
    ],
)
def test_training_goes_on_and_what_cannot_be_judged_has_no_weight(
    name: str, awaited: bool, policy: Any, tokenizer: Any, pool: VerifierPool, tmp_path: Any
) -> None:
    kind, config = TRAINERS[name]
    function = as_reward_func(EvenDigits(), column="gold", pool=pool)
    kind, seen = watched(kind, function)
    trainer = kind(
        model=policy,
        reward_funcs=function.as_async() if awaited else function,
        args=config(**settings(tmp_path)),
        train_dataset=rows(),
        processing_class=tokenizer,
    )
    before = weights(trainer.model)
    trainer.train()

    assert trainer.state.global_step == 3
    assert all(math.isfinite(loss) for loss in logged(trainer, "loss"))
    assert any(not torch.equal(before[key], value) for key, value in weights(trainer.model).items())
    assert all(torch.isfinite(value).all() for value in weights(trainer.model).values())
    assert len(seen) == 3
    for outcomes, advantages in seen:
        assert len(outcomes) == len(advantages) == 4 * GROUP
        assert outcomes.count(Outcome.BAD_REFERENCE) == GROUP
        unscorable = [o.score is None for o in outcomes]
        assert all(a == 0 for a, left_out in zip(advantages, unscorable, strict=True) if left_out)
        assert any(a != 0 for a in advantages)
        for group in range(0, len(outcomes), GROUP):
            expected = group_advantages(outcomes[group : group + GROUP])
            found = advantages[group : group + GROUP]
            if name == "grpo":
                assert found == pytest.approx(expected, abs=1e-3)
            assert [a > 0 for a in found] == [a > 0 for a in expected]
    every = [outcome for outcomes, _ in seen for outcome in outcomes]
    assert Outcome.TIMEOUT in every
    for outcome in Outcome:  # logged once a step, each the share of that rollout
        shares = [outcomes.count(outcome) / (4 * GROUP) for outcomes, _ in seen]
        assert logged(trainer, f"verdict/{outcome}") == pytest.approx(shares)
    assert function.counts == {outcome: every.count(outcome) for outcome in set(every)}


def group_advantages(outcomes: list[Outcome]) -> list[float]:
    """GRPO's advantages of one group by its definition, over those that have a score; 0 for the rest."""
    scores = [o.score for o in outcomes]
    kept = [score for score in scores if score is not None]
    mean = sum(kept) / len(kept) if kept else 0.0
    deviation = math.sqrt(sum((s - mean) ** 2 for s in kept) / (len(kept) - 1)) if len(kept) > 1 else 0.0
    return [0.0 if score is None else (score - mean) / (deviation + 1e-4) for score in scores]


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", TRAINERS)
def test_effort_alone_pays_only_where_it_is_not_tied_to_the_outcome(
    name: str, tied: bool, policy: Any, tokenizer: Any, pool: VerifierPool, tmp_path: Any
) -> None:
    kind, config = TRAINERS[name]
    outcome = as_reward_func(EvenDigits(), column="gold", pool=pool)
    decode = functools.partial(tokenizer.decode, skip_special_tokens=True)
    effort = as_exploration_func(LengthExploration(8), outcome=outcome if tied else None, decode=decode)
    kind, seen = watched(kind, outcome)
    trainer = kind(
        model=policy,
        reward_funcs=[outcome, effort],
        args=config(**settings(tmp_path, max_steps=2, reward_weights=[0.8, 0.2])),
        train_dataset=rows(),
        processing_class=tokenizer,
    )
    trainer.train()
    unscorable = [a for outcomes, found in seen for o, a in zip(outcomes, found, strict=True) if o.score is None]
    assert len(unscorable) >= 2 * GROUP
    assert any(a != 0 for a in unscorable) is not tied
    if tied:
        assert len(logged(trainer, "exploration/LengthExploration/gated")) == 2


@pytest.mark.slow
def test_conversations_are_trained_on_too(policy: Any, tokenizer: Any, pool: VerifierPool, tmp_path: Any) -> None:
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    function = as_reward_func(EvenDigits(), column="gold", pool=pool)
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=function,
        args=GRPOConfig(**settings(tmp_path, max_steps=1)),
        train_dataset=rows(chat=True),
        processing_class=tokenizer,
    )
    trainer.train()
    assert function.counts.total() == 4 * GROUP
    assert function.counts[Outcome.ERROR] == 0
    assert all(isinstance(text, str) for text in function.last_responses)


@pytest.mark.slow
def test_online_dpo_trains_but_takes_the_unjudged_for_wrong(
    policy: Any, tokenizer: Any, pool: VerifierPool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's experimental trainer sums with nansum alone: no sample is left out, and no outcome is logged."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    online_dpo = pytest.importorskip("trl.experimental.online_dpo", reason="this TRL has no OnlineDPOTrainer")
    options = settings(tmp_path, per_device_train_batch_size=4, max_steps=2)
    for name in ("num_generations", "max_completion_length", "beta"):
        del options[name]
    function = as_reward_func(EvenDigits(), column="gold", pool=pool)
    totals: list[list[float]] = []

    class Watched(online_dpo.OnlineDPOTrainer):  # type: ignore[misc, name-defined]
        def _calculate_rewards_from_functions(self, *arguments: Any, **keywords: Any) -> Any:
            rewards = super()._calculate_rewards_from_functions(*arguments, **keywords)
            totals.append(rewards.tolist())
            return rewards

    trainer = Watched(
        model=policy,
        reward_funcs=function,
        args=online_dpo.OnlineDPOConfig(**options, max_new_tokens=8),
        train_dataset=rows(),
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.state.global_step == 2
    assert function.counts.total() == 2 * 2 * 4
    assert function.counts[Outcome.BAD_REFERENCE] == 2 * 2
    assert totals[-1] == [verdict.score or 0.0 for verdict in function.last_verdicts]
