"""Responses from a rollout backend: the trainer's sampling options, and a seed for every row of the run."""

from typing import TYPE_CHECKING

from rltoolkit.rollout.base import RolloutBackend, request_seed
from rltoolkit.rollout.ranks import sample_together
from rltoolkit.types import SamplingParams

if TYPE_CHECKING:
    from rltoolkit.rlsp.trainer import RLSPTrainer

__all__ = ["sample_from"]


def sample_from(
    backend: RolloutBackend, trainer: "RLSPTrainer", prompt_ids: list[list[int]]
) -> tuple[list[list[int]], list[list[float]]]:
    """Token ids and the sampler's log-probs of one response per prompt of this process; every process calls it."""
    sampling = SamplingParams(
        temperature=trainer.temperature,
        top_p=trainer.top_p,
        top_k=trainer.top_k or 0,
        min_p=trainer.min_p or 0.0,
        max_new_tokens=trainer.max_completion_length,
    )
    version = trainer.state.global_step
    first_row = trainer.accelerator.process_index * len(prompt_ids)
    seeds = [request_seed(trainer.args.seed, version, ids, first_row + row) for row, ids in enumerate(prompt_ids)]
    policy = trainer.accelerator.unwrap_model(trainer.model)
    groups = sample_together(backend, policy, version, lambda: backend.generate(prompt_ids, 1, sampling, seeds))
    samples = [group[0] for group in groups]
    return [list(sample.token_ids) for sample in samples], [list(sample.logprobs) for sample in samples]
