"""References that a verifier cannot read."""

import pytest

from reward_models.integer import IntegerVerifier
from reward_models.pool import VerifierPool
from rltoolkit.data.unreadable import unreadable_references


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(IntegerVerifier(), workers=1) as started:
        yield started


def test_the_first_one_is_named(pool: VerifierPool) -> None:
    count, what = unreadable_references(pool, ["1", "one", "2", "one"])
    assert count == 2
    assert what.startswith("the verifier cannot read 2 of 4 references, first in row 2: 'one' (")


def test_every_row_is_looked_at(pool: VerifierPool) -> None:
    assert unreadable_references(pool, ["1"] * 10_000) == (0, "the verifier can read all references")
    assert unreadable_references(pool, ["1"] * 10_000 + ["x" * 1000])[0] == 1
