"""All of and any of: which outcome wins, for every pair of outcomes."""

import itertools

import pytest

from reward_models.combine import AllOf, AnyOf
from reward_models.countdown import CountdownVerifier
from reward_models.errors import VerifierError
from reward_models.integer import IntegerVerifier
from reward_models.regex import RegexVerifier
from reward_models.text_match import ExactVerifier
from reward_models.verdict import Outcome, Verdict


class Says:
    """Always the same outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.warm = 0

    def check(self, response: str, reference: str) -> Verdict:
        return Verdict(self.outcome, self.outcome.score, str(self.outcome) if self.outcome.score else None, "because")

    def warm_up(self) -> None:
        self.warm += 1


class Raises:
    def check(self, response: str, reference: str) -> Verdict:
        raise KeyError("x")


# Rows and columns: correct, wrong, no_answer, bad_reference, timeout, error. Written out, not computed.
ORDER = list(Outcome)
ALL_OF = """
correct       wrong         no_answer     bad_reference timeout       error
wrong         wrong         wrong         bad_reference wrong         wrong
no_answer     wrong         no_answer     bad_reference no_answer     no_answer
bad_reference bad_reference bad_reference bad_reference bad_reference bad_reference
timeout       wrong         no_answer     bad_reference timeout       timeout
error         wrong         no_answer     bad_reference timeout       error
"""
ANY_OF = """
correct       correct       correct       correct       correct       correct
correct       wrong         wrong         wrong         timeout       error
correct       wrong         no_answer     no_answer     timeout       error
correct       wrong         no_answer     bad_reference timeout       error
correct       timeout       timeout       timeout       timeout       timeout
correct       error         error         error         timeout       error
"""


@pytest.mark.parametrize(("kind", "table"), [(AllOf, ALL_OF), (AnyOf, ANY_OF)])
def test_the_table(kind: type, table: str) -> None:
    rows = [line.split() for line in table.strip().splitlines()]
    assert [str(outcome) for outcome in ORDER] == ["correct", "wrong", "no_answer", "bad_reference", "timeout", "error"]
    for (i, first), (j, second) in itertools.product(enumerate(ORDER), repeat=2):
        assert kind([Says(first), Says(second)]).check("", "").outcome == rows[i][j], (first, second)


def test_one_alone_is_itself() -> None:
    for outcome in Outcome:
        for kind in (AllOf, AnyOf):
            assert kind([Says(outcome)]).check("", "").outcome is outcome


def test_the_verdict_names_who_decided() -> None:
    verdict = AllOf([Says(Outcome.CORRECT), IntegerVerifier()]).check(r"\boxed{8}", "7")
    assert verdict.extracted == "8"
    assert verdict.detail == "AllOf: 1 of 2 wrong, first IntegerVerifier (number 2): last box; compared as integers"


def test_one_that_raises_is_an_error() -> None:
    assert AllOf([Raises()]).check("", "").outcome is Outcome.ERROR
    assert "KeyError" in AnyOf([Raises()]).check("", "").detail


def test_nested() -> None:
    """(an integer in a box, or a text in a box) and a line of hashes with the same text."""
    verifier = AllOf([AnyOf([IntegerVerifier(), ExactVerifier()]), RegexVerifier(pattern="#### (.+)")])
    assert verifier.check("\\boxed{07}\n#### 7", "7").outcome is Outcome.CORRECT
    assert verifier.check("\\boxed{yes}\n#### yes", "yes").outcome is Outcome.CORRECT
    assert verifier.check("\\boxed{07}\n#### 8", "7").outcome is Outcome.WRONG
    assert verifier.check("\\boxed{7}", "7").outcome is Outcome.NO_ANSWER
    assert verifier.check("\\boxed{7}", "").outcome is Outcome.BAD_REFERENCE


def test_gold_responses_pass_through() -> None:
    verifier = AllOf([IntegerVerifier(), ExactVerifier(), RegexVerifier(pattern="#### (.+)")])
    assert verifier.gold_response("7") == "\\boxed{7}\n#### 7"
    assert verifier.check(verifier.gold_response("7"), "7").outcome is Outcome.CORRECT
    assert AllOf([IntegerVerifier(), Says(Outcome.CORRECT)]).gold_response("7") is None
    either = AnyOf([IntegerVerifier(), RegexVerifier(pattern="#### (.+)"), CountdownVerifier()])
    assert either.gold_response("yes") == "#### yes"
    assert AnyOf([CountdownVerifier(), IntegerVerifier()]).gold_response("7") == r"\boxed{7}"
    assert AnyOf([IntegerVerifier()]).gold_response("x") == r"\boxed{x}"


def test_warm_up_passes_through() -> None:
    inner, outer = Says(Outcome.CORRECT), Says(Outcome.CORRECT)
    AllOf([AnyOf([inner]), outer, IntegerVerifier()]).warm_up()
    assert (inner.warm, outer.warm) == (1, 1)


@pytest.mark.parametrize("verifiers", [[], None, "math", IntegerVerifier(), [None], [IntegerVerifier], ["math"]])
def test_what_cannot_be_combined(verifiers) -> None:
    for kind in (AllOf, AnyOf):
        with pytest.raises(VerifierError, match=f"{kind.__name__} verifier"):
            kind(verifiers)
