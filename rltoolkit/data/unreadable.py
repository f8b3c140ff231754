"""References that a verifier cannot read: their rows teach nothing."""

from __future__ import annotations

from collections.abc import Sequence

from reward_models.pool import VerifierPool
from reward_models.verdict import Outcome

ANY_ANSWER = r"\boxed{0}"  # something to judge when only the reference is in question


def unreadable_references(pool: VerifierPool, references: Sequence[str]) -> tuple[int, str]:
    """How many references the verifier cannot read, and a sentence that names the first of them.

    Every reference is looked at, each text once.
    """
    distinct = list(dict.fromkeys(references))
    verdicts = dict(zip(distinct, pool.check_many([ANY_ANSWER] * len(distinct), distinct), strict=True))
    bad = [row for row, text in enumerate(references) if verdicts[text].outcome is Outcome.BAD_REFERENCE]
    if not bad:
        return 0, "the verifier can read all references"
    first = references[bad[0]]
    where = f"{len(bad)} of {len(references)} references, first in row {bad[0] + 1}"
    return len(bad), f"the verifier cannot read {where}: {first[:80]!r} ({verdicts[first].detail})"
