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
    attempts: int | None = None  # lines before the answer
    distinct_attempts: int | None = None  # different ones
    backtracks: int | None = None  # phrases of turning back, and attempts after a miss
    repetition: float | None = None  # share of the response that repeats what stands earlier in it


def write_samples(samples_dir: Path, step: int, rank: int, rows: Sequence[SampleRow]) -> Path:
    """Write one Parquet file, atomically, and return its path; a repeated step replaces its file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {field.name: [getattr(row, field.name) for row in rows] for field in dataclasses.fields(SampleRow)}
    for name in ("prompt_ids", "completion_ids"):
        columns[name] = [list(ids) for ids in columns[name]]
    table = pa.table(columns, schema=_schema())
    samples_dir.mkdir(parents=True, exist_ok=True)
    path = samples_dir / sample_file(step, rank)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def sample_file(step: int, rank: int) -> str:
    """Name of the file with the samples of one rollout and process."""
    return f"step-{step:06d}-rank-{rank}.parquet"


def read_samples(samples_dir: Path) -> "pa.Table":
    """Return all samples of a run in the order of steps, then ranks; an empty table if there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(samples_dir.glob("step-*.parquet"), key=_step_and_rank)
    tables = [pq.read_table(path) for path in paths]
    # files of an older version lack the newer columns: null there
    return pa.concat_tables(tables, promote_options="default") if tables else _schema().empty_table()


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
        "attempts": pa.int64(),
        "distinct_attempts": pa.int64(),
        "backtracks": pa.int64(),
    }
    return pa.schema([(field.name, types.get(field.name, pa.float64())) for field in dataclasses.fields(SampleRow)])
