"""Poisoned answers among honest ones: every honest verdict stays right, and nothing is left behind."""

import gc
import os
import random
import time
from collections import Counter
from collections.abc import Sequence

import psutil
import pytest
from misbehaving_verifiers import RecklessAlgebra
from poisons import POISONS, RECKLESS, Poison

from reward_models import MathVerifier, Outcome, VerifierPool
from reward_models.verdict import Verifier

# What the allocator of the parent may keep of the megabytes that passed through it.
RSS_TOLERANCE_MB = 32
MARKER = f"97.{os.getpid()}"
# Of one call: the harmful answers that the issue names first, and a few that are only large.
TEN = (
    "tower in a fraction",
    "factorial of a factorial",
    "power of a sum",
    "catastrophic for a regex",
    "a million letters",
    "a million digits",
    "nested brackets",
    "more digits than print",
    "import and exit",
    "radicals",
)


def honest(count: int, *, boxed: bool) -> list[tuple[str, str, Outcome]]:
    """Answers with their references and what must be said of them: numbers, fractions, algebra; a third is wrong."""
    random_ = random.Random(7)
    rows = []
    for row in range(count):
        number, right = random_.randint(2, 10_000), row % 3 > 0
        stated = number if right else number + 1
        answer, reference = (
            (str(stated), str(number)),
            (f"{3 * stated}/{3 * 7}", f"{number}/7"),
            (f"x + {stated}", f"{number} + x"),
        )[row % 5 % 3]
        response = f"Hence $\\boxed{{{answer}}}$" if boxed else answer
        rows.append((response, reference, Outcome.CORRECT if right else Outcome.WRONG))
    return rows


def mixed(rows: Sequence[tuple[str, str, Outcome]], poisons: Sequence[Poison]) -> list[tuple[str, str, set[str]]]:
    """The rows with the poisons spread among them: response, reference, outcomes that are right."""
    mixture = [(response, reference, {str(outcome)}) for response, reference, outcome in rows]
    for index, poison in enumerate(poisons):
        place = (index * 2 + 1) * len(rows) // (2 * len(poisons)) + index
        mixture.insert(place, (poison.response.replace("MARKER", MARKER), poison.reference, set(poison.outcomes)))
    return mixture


def mistakes(pool: VerifierPool, mixture: Sequence[tuple[str, str, set[str]]]) -> list[str]:
    verdicts = pool.check_many([one[0] for one in mixture], [one[1] for one in mixture])
    assert len(verdicts) == len(mixture)
    return [
        f"{response[:60]!r} against {reference[:60]!r} is {verdict.outcome} ({verdict.detail[:80]}), not {right}"
        for (response, reference, right), verdict in zip(mixture, verdicts, strict=True)
        if verdict.outcome not in right
    ]


def left_behind() -> list[int]:
    """Processes that a poisoned answer started and nobody ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if MARKER in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_the_corpus_is_as_described() -> None:
    every = (*POISONS, *RECKLESS)
    assert len(POISONS) > 60
    assert len(RECKLESS) == 10
    assert [name for name, times in Counter(poison.name for poison in every).items() if times > 1] == []
    assert {outcome for poison in every for outcome in poison.outcomes} <= set(Outcome)
    assert set(TEN) <= {poison.name for poison in POISONS}


def test_every_poison_is_an_outcome_of_the_math_verifier() -> None:
    mixture = [(poison.response, poison.reference, set(poison.outcomes)) for poison in POISONS]
    with VerifierPool(MathVerifier(), workers=2, timeout_s=3.0) as pool:
        assert mistakes(pool, mixture) == []
        assert pool.counts[Outcome.ERROR] == 0


def test_harm_that_is_really_done_costs_only_itself() -> None:
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    with VerifierPool(RecklessAlgebra(), workers=2, timeout_s=3.0, memory_mb=1024) as pool:
        assert mistakes(pool, mixed(honest(60, boxed=False), [*RECKLESS[2:3], *RECKLESS[5:]])) == []
        assert pool.counts[Outcome.TIMEOUT] + pool.counts[Outcome.ERROR] == 6
        assert pool.counts[Outcome.TIMEOUT] > 0
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= children
    assert left_behind() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verifier", "poisons"),
    [(MathVerifier(), [poison for poison in POISONS if poison.name in TEN]), (RecklessAlgebra(), RECKLESS)],
    ids=["math", "reckless"],
)
def test_ten_poisoned_answers_in_a_thousand(verifier: Verifier, poisons: Sequence[Poison]) -> None:
    mixture = mixed(honest(990, boxed=isinstance(verifier, MathVerifier)), poisons)
    assert len(mixture) == 1000
    this = psutil.Process()
    children = {child.pid for child in this.children(recursive=True)}
    gc.collect()
    before = this.memory_info().rss
    with VerifierPool(verifier, workers=2, timeout_s=3.0) as pool:
        start = time.perf_counter()
        found = mistakes(pool, mixture)
        seconds = time.perf_counter() - start
        counts = pool.counts
    gc.collect()
    grown = (this.memory_info().rss - before) / 2**20
    print(f"1,000 answers, 10 poisoned: {seconds:.1f} s, parent grew by {grown:.1f} MiB, {dict(counts)}")
    assert found == []
    assert counts.total() == 1000
    assert counts[Outcome.TIMEOUT] + counts[Outcome.ERROR] <= 10
    assert {child.pid for child in this.children(recursive=True)} <= children
    assert left_behind() == []
    assert grown < RSS_TOLERANCE_MB
