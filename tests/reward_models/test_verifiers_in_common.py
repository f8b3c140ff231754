"""What every verifier promises: options by name, any text gives an outcome, copies judge alike, gold is accepted."""

import inspect
import json
import pickle
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.choice import ChoiceVerifier
from reward_models.combine import AllOf, AnyOf
from reward_models.errors import VerifierError
from reward_models.integer import IntegerVerifier
from reward_models.json_schema import JsonSchemaVerifier
from reward_models.numeric import NumericVerifier
from reward_models.regex import RegexVerifier
from reward_models.text_match import ExactVerifier
from reward_models.verdict import Outcome, Verifier

# verifier, a reference for it, a right and a wrong response
CASES = {
    "integer": (IntegerVerifier(), "1,024", r"\boxed{1024}", r"\boxed{1023}"),
    "exact": (ExactVerifier(), "Paris", r"\boxed{ Paris }", r"\boxed{Rome}"),
    "regex pattern": (RegexVerifier(pattern="#### (.+)"), "7", "#### 7", "#### 8"),
    "regex reference": (RegexVerifier(), "7", r"\boxed{7}", r"\boxed{8}"),
    "choice": (ChoiceVerifier(), "(B)", r"\boxed{B}", r"\boxed{C}"),
    "numeric": (NumericVerifier(rel_tol=0.01), "2.50", r"\boxed{2.51}", r"\boxed{2.6}"),
    "json reference": (JsonSchemaVerifier(compare=True), '{"a": 1}', '{"a": 1}', '{"a": 2}'),
    "json schema": (JsonSchemaVerifier(schema={"const": 1}), "", "1", "2"),
    "all of": (AllOf([IntegerVerifier(), ExactVerifier()]), "7", r"\boxed{7}", r"\boxed{07}"),
    "any of": (AnyOf([IntegerVerifier(), ExactVerifier()]), "seven", r"\boxed{seven}", r"\boxed{7}"),
}
HOSTILE = {
    "empty": "",
    "blank": " \n\t ",
    "surrogate": '\\boxed{\ud800} #### \udfff {"a": "\ud800"}',
    "null": "\\boxed{\x00}#### \x00",
    "open": "\\boxed{" * 3000,
    "closed": "}" * 3000,
    "code": "\\boxed{__import__('os').system('true')}",
    "tower": "\\boxed{9^{9^{9^9}}} #### 9**9**9**9",
    "factorial": "\\boxed{(10^9)!!}",
    "digits": "\\boxed{" + "9" * 1_000_000 + "} #### " + "9" * 1_000_000,
    "blanks": "\\boxed{1" + " " * 100_000 + "1}",
    "letters": "\\boxed{" + "A) " * 100_000 + "}",
    "commands": "\\boxed{" + "\\text{" * 10_000 + "}" * 10_000 + "}",
    "exponent": "\\boxed{1e999999999999}",
}
every_case = pytest.mark.parametrize(("verifier", "reference", "right", "wrong"), CASES.values(), ids=CASES)


@every_case
def test_right_and_wrong(verifier: Verifier, reference: str, right: str, wrong: str) -> None:
    assert isinstance(verifier, Verifier)
    for response, outcome in ((right, Outcome.CORRECT), (wrong, Outcome.WRONG)):
        verdict = verifier.check(response, reference)
        assert verdict.outcome is outcome
        assert verdict.extracted
        assert verdict.detail


@every_case
def test_a_copy_judges_alike(verifier: Verifier, reference: str, right: str, wrong: str) -> None:
    copy = pickle.loads(pickle.dumps(verifier))
    for response in (right, wrong, ""):
        assert copy.check(response, reference) == verifier.check(response, reference)


@every_case
def test_its_own_gold_response_is_accepted(verifier, reference: str, right: str, wrong: str) -> None:
    response = verifier.gold_response(reference)
    assert response is not None
    assert verifier.check(response, reference).outcome is Outcome.CORRECT


@every_case
def test_thinking_does_not_count(verifier: Verifier, reference: str, right: str, wrong: str) -> None:
    assert verifier.check(f"<think>{wrong}</think>{right}", reference).outcome is Outcome.CORRECT
    assert verifier.check(f"<think>{right}</think>", reference).outcome is Outcome.NO_ANSWER
    assert verifier.check(f"<think>{right}", reference).outcome is Outcome.NO_ANSWER


@every_case
def test_any_text_gives_an_outcome(verifier: Verifier, reference: str, right: str, wrong: str) -> None:
    for text in HOSTILE.values():
        first = verifier.check(text, reference)
        assert first.outcome in (Outcome.WRONG, Outcome.NO_ANSWER)
        assert len(first.extracted or "") <= 510
        assert verifier.check(right, text).outcome in Outcome
        assert verifier.check(text, text).outcome in Outcome


@every_case
def test_ten_megabytes_of_text(verifier: Verifier, reference: str, right: str, wrong: str) -> None:
    """Right at the end, so that all of it is read; CPU seconds, far above what is needed, catch quadratic time."""
    filling = "\\boxed{x} {[( "
    text = filling * (10_000_000 // len(filling)) + "\n" + right
    started = time.process_time()
    assert verifier.check(text, reference).outcome in (Outcome.CORRECT, Outcome.WRONG, Outcome.NO_ANSWER)
    assert time.process_time() - started < 60


PIECES = [
    "\\boxed{", "}", "{", "A", "(B)", "1", ",", "000", ".", "/", "%", "\\frac", "\\text{", "$", " ", "\n", "=", "x",
    "-", "[", "]", "```json\n", "```", '"', "e5", "option ", "####", "\ud800", "\u202f", "cm", "or", "Answer: ", "*",
    "(", ")", "inf",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)


@given(TEXTS, TEXTS)
def test_texts_of_pieces_give_an_outcome(first: str, second: str) -> None:
    for verifier, reference, right, _ in CASES.values():
        for response in (first, f"\\boxed{{{first}}}", f"#### {first}"):
            assert verifier.check(response, second).outcome in Outcome
            assert verifier.check(response, reference).outcome in (Outcome.CORRECT, Outcome.WRONG, Outcome.NO_ANSWER)
        assert verifier.check(right, second).outcome is not Outcome.ERROR


@given(TEXTS)
def test_a_reference_that_can_be_read_equals_itself(text: str) -> None:
    for kind in (IntegerVerifier, ExactVerifier, ChoiceVerifier, NumericVerifier):
        assert kind(extraction="whole").check(text, text).outcome in (Outcome.CORRECT, Outcome.BAD_REFERENCE)


def test_options_are_given_by_name() -> None:
    for verifier in (
        IntegerVerifier,
        ExactVerifier,
        RegexVerifier,
        ChoiceVerifier,
        NumericVerifier,
        JsonSchemaVerifier,
    ):
        kinds = {parameter.kind for parameter in inspect.signature(verifier).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("kind", [IntegerVerifier, ExactVerifier, RegexVerifier, ChoiceVerifier, NumericVerifier])
def test_wrong_places_are_refused_at_once(kind: type) -> None:
    with pytest.raises(
        VerifierError, match=f"{kind.__name__} extraction is 'anywhere'; expected one of boxed, marked, lenient, whole"
    ):
        kind(extraction="anywhere")
    with pytest.raises(VerifierError, match=f"{kind.__name__} thinking_end is 3"):
        kind(thinking_end=3)


def test_importing_and_making_them_loads_nothing_heavy() -> None:
    code = (
        "import sys, json\n"
        "import reward_models.integer, reward_models.text_match, reward_models.regex, reward_models.choice\n"
        "import reward_models.numeric, reward_models.json_schema, reward_models.combine\n"
        "reward_models.json_schema.JsonSchemaVerifier()\n"
        "print(json.dumps([m for m in ('jsonschema', 'sympy', 'torch', 'numpy', 'math_verify') if m in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
