"""The verifier on gold answers."""

import pytest

from reward_models import CountdownProblem, CountdownVerifier, MathVerifier, Outcome, Verdict
from rltoolkit.check.gold import check_gold, gold_response, solve


class BoxlessVerifier:
    """Reads the whole response, so a gold answer in a box is wrong for it."""

    def check(self, response: str, reference: str) -> Verdict:
        return Verdict.correct(response) if response == reference else Verdict.wrong(response)


def test_good_references_are_accepted() -> None:
    result = check_gold(MathVerifier(), ["42", "\\frac{1}{2}", "x^2+1"], workers=1)
    assert result.failures == ()
    assert result.lines() == ["3 of 3 gold answers accepted"]


def test_a_reference_that_cannot_be_read_is_named_by_row() -> None:
    result = check_gold(MathVerifier(), ["42", "", "7"], workers=1)
    ((row, reference, verdict),) = result.failures
    assert (row, reference, verdict.outcome) == (2, "", Outcome.BAD_REFERENCE)
    assert result.sure
    assert result.lines()[1].startswith("row 2: gold '' is judged bad_reference")


def test_countdown_is_solved() -> None:
    good, unsolvable = "numbers=3,5,2;target=16", "numbers=1,1,1;target=99"
    result = check_gold(CountdownVerifier(), [good, unsolvable, "3 5 2 -> 16"], workers=1)
    assert [row for row, _, _ in result.failures] == [2, 3]
    assert result.outcomes[Outcome.CORRECT] == 1


def test_too_many_numbers_are_not_tried() -> None:
    numbers = "numbers=1,2,3,4,5,6;target=21"
    assert gold_response(CountdownVerifier(), numbers) is None
    result = check_gold(CountdownVerifier(), [numbers, "numbers=1,2;target=3"], workers=1)
    assert (result.untried, result.failures) == (1, ())
    assert "1 row(s) not tried" in result.lines()[-1]


@pytest.mark.parametrize(
    ("numbers", "target", "solvable"), [((8, 2), 4, True), ((3, 3, 8, 8), 24, True), ((1, 1), 5, False)]
)
def test_solutions_are_right(numbers: tuple[int, ...], target: int, solvable: bool) -> None:
    problem = CountdownProblem(numbers, target)
    solution = solve(problem)
    assert (solution is not None) is solvable
    if solution is not None:
        verdict = CountdownVerifier().check(f"\\boxed{{{solution}}}", problem.reference())
        assert verdict.outcome is Outcome.CORRECT


def test_a_verifier_of_another_form_is_not_blamed() -> None:
    result = check_gold(BoxlessVerifier(), ["42"], workers=1)
    assert len(result.failures) == 1
    assert not result.sure
