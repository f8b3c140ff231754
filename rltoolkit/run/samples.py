"""Samples of a run as Parquet: one file per step and process, one row per response."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rltoolkit.run.atomic import replacing

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class SampleRow:
    """One response of the policy with everything that was decided about it."""

    step: int  # optimiser step of the policy that wrote it
    prompt: str  # as the model read it, decoded for people; `prompt_ids` is what counts
    completion: str
    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]  # with the end-of-sequence token when the policy wrote it
    outcome_reward: float | None  # None: the verifier gave no score
    exploration_reward: float | None  # None: no exploration reward in this run
    total_reward: float | None  # None: left out of the loss
    verdict: str  # a value of reward_models.Outcome
    extracted: str | None  # the answer that the verifier read
    advantage_mean: float | None  # over the response's tokens, after whitening
    advantage_std: float | None
    value_first: float | None  # the critic's value before the first response token
    truncated: bool  # the token limit ended the response


def write_samples(samples_dir: Path, step: int, rank: int, rows: Sequence[SampleRow]) -> Path:
    """Write one Parquet file, atomically, and return its path; a repeated step replaces its file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {field.name: [getattr(row, field.name) for row in rows] for field in dataclasses.fields(SampleRow)}
    for name in ("prompt_ids", "completion_ids"):
        columns[name] = [list(ids) for ids in columns[name]]
    table = pa.table(columns, schema=_schema())
    samples_dir.mkdir(parents=True, exist_ok=True)
    path = samples_dir / f"step-{step:06d}-rank-{rank}.parquet"
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def read_samples(samples_dir: Path) -> "pa.Table":
    """Return all samples of a run in the order of steps, then ranks; an empty table if there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(samples_dir.glob("step-*.parquet"), key=_step_and_rank)
    return pa.concat_tables([pq.read_table(path) for path in paths]) if paths else _schema().empty_table()


def _step_and_rank(path: Path) -> tuple[int, int]:
    _, step, _, rank = path.stem.split("-")
    return int(step), int(rank)


def _schema() -> "pa.Schema":
    """Fixed types, so that a file whose optional values are all missing can be read with the others."""
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    types = {
        "step": pa.int64(),
        "prompt": pa.string(),
        "completion": pa.string(),
        "prompt_ids": ids,
        "completion_ids": ids,
        "verdict": pa.string(),
        "extracted": pa.string(),
        "truncated": pa.bool_(),
    }
    return pa.schema([(field.name, types.get(field.name, pa.float64())) for field in dataclasses.fields(SampleRow)])
