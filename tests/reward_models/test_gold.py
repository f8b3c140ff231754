"""The verifier on gold answers."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from misbehaving_verifiers import OddGold

from reward_models import AnyOf, CountdownProblem, CountdownVerifier, MathVerifier, Outcome, Verdict, VerifierPool
from reward_models.countdown_solver import MOST_NUMBERS, solve
from reward_models.gold import GoldCheck, gold_check, gold_response, gold_verdict
from reward_models.verdict import Verifier, refusal


class BoxlessVerifier:
    """Reads the whole response, so a gold answer in a box is wrong for it."""

    def check(self, response: str, reference: str) -> Verdict:
        return Verdict.correct(response) if response == reference else Verdict.wrong(response)


def check_gold(verifier: Verifier, references: Any) -> GoldCheck:
    """Judge in this process; the pool's own way is tested below."""
    verdicts = [refusal("", reference) or gold_verdict(verifier, reference) for reference in references]
    return gold_check(verifier, references, verdicts)


def test_good_references_are_accepted() -> None:
    result = check_gold(MathVerifier(), ["42", "\\frac{1}{2}", "x^2+1"])
    assert result.failures == ()
    assert result.lines() == ["3 of 3 gold answers accepted"]


def test_a_reference_that_cannot_be_read_is_named_by_row() -> None:
    result = check_gold(MathVerifier(), ["42", "", "7"])
    ((row, reference, verdict),) = result.failures
    assert (row, reference, verdict.outcome) == (2, "", Outcome.BAD_REFERENCE)
    assert result.lines()[1].startswith("row 2: gold '' is judged bad_reference")


def test_countdown_is_solved() -> None:
    good, unsolvable, unreadable = "numbers=3,5,2;target=16", "numbers=1,1,1;target=99", "3 5 2 -> 16"
    result = check_gold(CountdownVerifier(), [good, unsolvable, unreadable])
    assert [(row, verdict.outcome) for row, _, verdict in result.failures] == [
        (2, Outcome.WRONG),
        (3, Outcome.BAD_REFERENCE),
    ]
    assert result.outcomes == {Outcome.CORRECT: 1, Outcome.WRONG: 1, Outcome.BAD_REFERENCE: 1}
    assert result.sure


def test_what_no_response_can_be_written_for_is_not_tried() -> None:
    numbers = "numbers=1,2,3,4,5,6;target=21"
    assert gold_response(CountdownVerifier(), numbers) is None
    result = check_gold(CountdownVerifier(), [numbers, "numbers=1,2;target=3"])
    assert (result.untried, result.failures, result.outcomes.total()) == (1, (), 1)
    assert result.lines()[-1] == "1 row(s) not tried: the verifier cannot write a right response to them"


def test_a_verifier_of_another_form_is_not_blamed() -> None:
    result = check_gold(BoxlessVerifier(), ["42"])
    assert len(result.failures) == 1
    assert not result.sure
    assert result.certain_failures == ()


def test_a_verifier_that_fails_is_blamed_whatever_form_it_reads() -> None:
    class Broken(BoxlessVerifier):
        def check(self, response: str, reference: str) -> Verdict:
            raise LookupError("broken")

    result = check_gold(Broken(), ["42"])
    assert not result.sure
    assert result.certain_failures == result.failures
    assert result.failures[0][2].outcome is Outcome.ERROR


def test_a_gold_response_that_fails_is_an_error_of_its_row() -> None:
    result = check_gold(OddGold(), ["5", "raise", "number", "hidden", 7])
    assert [(row, verdict.outcome) for row, _, verdict in result.failures] == [
        (2, Outcome.ERROR),
        (3, Outcome.ERROR),
        (5, Outcome.BAD_REFERENCE),
    ]
    assert result.failures[0][2].detail == "OddGold.gold_response raised LookupError: no gold here"
    assert result.failures[1][2].detail == "OddGold.gold_response returned float, expected str"
    assert (result.untried, result.sure) == (1, True)


def test_many_failures_are_told_shortly() -> None:
    lines = check_gold(BoxlessVerifier(), ["x" * 500] * 8).lines()
    assert len(lines) == 7
    assert lines[-1] == "and 3 more"
    assert len(lines[1]) < 200


@pytest.fixture
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(CountdownVerifier(), workers=1) as running:
        yield running


def test_a_pool_checks_gold_and_does_not_count_it(pool: VerifierPool) -> None:
    result = pool.check_gold(["numbers=3,5,2;target=16", "nonsense", "numbers=1,2,3,4,5,6;target=21"])
    assert result.outcomes == {Outcome.CORRECT: 1, Outcome.BAD_REFERENCE: 1}
    assert result.untried == 1
    assert pool.counts == {}
    assert pool.check_gold([]).lines() == ["0 of 0 gold answers accepted"]


def test_a_gold_response_that_hangs_is_a_timeout_of_its_row() -> None:
    with VerifierPool(AnyOf([OddGold()]), workers=1, timeout_s=1.0) as pool:
        result = pool.check_gold(["5", "hang", "hidden", 7])  # type: ignore[list-item]
    assert [(row, verdict.outcome) for row, _, verdict in result.certain_failures] == [
        (2, Outcome.TIMEOUT),
        (4, Outcome.BAD_REFERENCE),
    ]
    assert (result.outcomes[Outcome.CORRECT], result.untried) == (1, 1)


@pytest.mark.parametrize(
    ("numbers", "target", "solvable"),
    [((8, 2), 4, True), ((3, 3, 8, 8), 24, True), ((1, 1), 5, False), ((7,), 7, True)],
)
def test_solutions_are_right(numbers: tuple[int, ...], target: int, solvable: bool) -> None:
    solution = solve(numbers, target)
    assert (solution is not None) is solvable
    if solution is not None:
        reference = CountdownProblem(numbers, target).reference()
        assert CountdownVerifier().check(f"\\boxed{{{solution}}}", reference).outcome is Outcome.CORRECT


def test_random_solutions_are_right_up_to_the_most_numbers() -> None:
    random_ = random.Random(0)
    solved = 0
    for count, _ in itertools.product(range(2, MOST_NUMBERS + 1), range(8)):
        problem = CountdownProblem(tuple(random_.randint(1, 12) for _ in range(count)), random_.randint(1, 40))
        response = CountdownVerifier().gold_response(problem.reference())
        assert response is not None
        if response != "\\boxed{}":
            solved += 1
            assert CountdownVerifier().check(response, problem.reference()).outcome is Outcome.CORRECT
    assert solved >= 12
