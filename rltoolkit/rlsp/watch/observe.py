"""What a rollout shows: numbers for the log, rows for the sample files. Nothing here feeds back into training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.rewards.scoring import ResponseFacts, exploration_paid
from rltoolkit.rlsp.watch.signs import Signs
from rltoolkit.run.samples import SampleRow

__all__ = ["Rollout", "rollout_metrics", "sample_rows", "truncated"]


@dataclass(frozen=True)
class Rollout:
    """One process's responses with everything that was computed for them; vectors are (B,), `mask` is (B, C)."""

    output: dict[str, Any]
    score: Tensor
    outcome: Tensor
    exploration: Tensor | None
    facts: Sequence[ResponseFacts]
    signs: Sequence[Signs]
    mask: Tensor

    @property
    def lengths(self) -> Tensor:
        """(B,) tokens per response, with the end-of-sequence token."""
        lengths: Tensor = self.output["completion_mask"].sum(1)
        return lengths


def rollout_metrics(rollout: Rollout, config: RLSPConfig, eos_token_ids: Sequence[int]) -> tuple[list[str], Tensor]:
    """Names, and sums with counts (N, 2), to be added over ranks; a mean is sum / count.

    The same names on every rank and in every rollout, so that ranks can be added blindly.
    """
    score, mask = rollout.score, rollout.mask
    device = score.device
    facts, signs = rollout.facts, rollout.signs

    def of_facts(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device)

    turned_back = of_facts([sign.backtracked for sign in signs])
    unknown = torch.full_like(score, torch.nan)
    exploration = rollout.exploration if rollout.exploration is not None else unknown
    per_response = {
        "reward/total": score,
        "reward/outcome": rollout.outcome,
        "reward/exploration": exploration,
        "reward/exploration_paid": exploration_paid(rollout.exploration, facts, config, like=score),
        "reward/exploration_at_cap": (exploration >= 1).double().masked_fill(exploration.isnan(), torch.nan),
        "reward/unscorable": score.isnan(),
        "reward/clipped": score.abs() >= config.reward_clip if config.paper_compat else unknown,
        "format_rate": of_facts([fact.has_answer for fact in facts]),
        "attempts": of_facts([fact.attempts for fact in facts]),
        "distinct_attempts": of_facts([sign.distinct_attempts for sign in signs]),
        "backtracking/phrases": of_facts([sign.phrases for sign in signs]),
        "backtracking/after_miss": of_facts([sign.after_miss for sign in signs]),
        "backtracking/responses": turned_back,
        "backtracking/solved": turned_back * rollout.outcome,
        "repetition": of_facts([sign.repetition for sign in signs]),
        "completions/truncated": truncated(rollout.output, eos_token_ids),
    }
    sums = [_sum_and_count(values) for values in per_response.values()]
    names = list(per_response)
    if "ref_per_token_logps" in rollout.output:
        log_ratio = rollout.output["old_per_token_logps"] - rollout.output["ref_per_token_logps"]
        names.append("kl")
        sums.append(torch.stack([(log_ratio * mask).sum().double(), mask.sum().double()]))
    return names, torch.stack(sums)


def truncated(output: dict[str, Any], eos_token_ids: Sequence[int]) -> Tensor:
    """(B,) bool: the response does not end with an end-of-sequence token."""
    ids, lengths = output["completion_ids"], output["completion_mask"].sum(1)
    last = ids.gather(1, (lengths - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
    return ~torch.isin(last, torch.tensor(list(eos_token_ids), device=ids.device))


def sample_rows(
    rollout: Rollout, step: int, tokenizer: PreTrainedTokenizerBase, eos_token_ids: Sequence[int]
) -> list[SampleRow]:
    """One row per response, as it was scored."""
    output, mask = rollout.output, rollout.mask
    cut = truncated(output, eos_token_ids).tolist()
    rows = []
    for row, (fact, signs) in enumerate(zip(rollout.facts, rollout.signs, strict=True)):
        prompt = output["prompt_ids"][row][output["prompt_mask"][row].bool()].tolist()
        counted = mask[row].bool()
        advantages = output["advantages"][row][counted]
        rows.append(
            SampleRow(
                step=step,
                prompt=str(tokenizer.decode(prompt)),
                completion=fact.text,
                prompt_ids=prompt,
                completion_ids=output["completion_ids"][row][output["completion_mask"][row].bool()].tolist(),
                outcome_reward=_or_none(rollout.outcome[row]),
                exploration_reward=None if rollout.exploration is None else _or_none(rollout.exploration[row]),
                total_reward=_or_none(rollout.score[row]),
                verdict="" if fact.verdict is None else str(fact.verdict.outcome),
                extracted=None if fact.verdict is None else fact.verdict.extracted,
                advantage_mean=_or_none(advantages.mean()),
                advantage_std=_or_none(advantages.std(correction=0)) if advantages.numel() else None,
                value_first=float(output["old_values"][row, 0].sum()),
                truncated=bool(cut[row]),
                attempts=fact.attempts,
                distinct_attempts=signs.distinct_attempts,
                backtracks=signs.phrases + signs.after_miss,
                repetition=signs.repetition,
            )
        )
    return rows


def _sum_and_count(values: Tensor) -> Tensor:
    values = values.double()
    known = ~values.isnan()
    return torch.stack([values[known].sum(), known.sum().double()])


def _or_none(value: Tensor) -> float | None:
    return None if value.isnan() else float(value)
