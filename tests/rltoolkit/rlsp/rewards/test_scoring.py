"""What is known of responses that were just judged, and the scalar that comes of it."""

import asyncio
import math

import pytest
import torch

from reward_models.countdown import CountdownVerifier
from reward_models.reward_func import as_reward_func
from reward_models.verdict import Outcome
from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.rewards.scoring import as_outcome_function, combine, describe

REFERENCE = "numbers=3,5,2;target=16"
TEXTS = [r"\boxed{(3+5)*2}", r"\boxed{3}", "no box", r"\boxed{3}"]
REFERENCES = [REFERENCE] * 3 + ["damaged"]


@pytest.fixture
def judged():
    function = as_reward_func(CountdownVerifier(), pool=False)
    return function, function(["p"] * 4, TEXTS, answer=REFERENCES)


def test_a_verifier_gets_a_function_and_a_function_stays():
    function = as_outcome_function(CountdownVerifier())
    assert function.verifier.__class__ is CountdownVerifier
    assert as_outcome_function(function) is function


def test_facts_come_from_the_verdicts(judged):
    facts = describe(TEXTS, judged[0], paper=False)
    assert [fact.has_answer for fact in facts] == [True, True, False, True]
    assert [fact.verdict.outcome for fact in facts] == [
        Outcome.CORRECT,
        Outcome.WRONG,
        Outcome.NO_ANSWER,
        Outcome.BAD_REFERENCE,
    ]


def test_an_awaited_function_tells_as_much():
    function = as_reward_func(CountdownVerifier(), pool=False).as_async()
    asyncio.run(function(["p"] * 4, TEXTS, answer=REFERENCES))
    assert [fact.verdict for fact in describe(TEXTS, function, paper=False)] == function.last_verdicts


def test_a_foreign_function_leaves_the_box_to_tell():
    facts = describe(TEXTS, lambda **_: [0.0] * 4, paper=False)
    assert [fact.has_answer for fact in facts] == [True, True, False, True]
    assert {fact.verdict for fact in facts} == {None}


def test_effort_is_not_paid_without_an_answer_or_an_outcome(judged, tmp_path):
    function, scores = judged
    config = RLSPConfig(str(tmp_path), per_device_train_batch_size=4, use_cpu=True, bf16=False)
    outcome = torch.tensor([math.nan if score is None else score for score in scores])
    facts = describe(TEXTS, function, paper=False)
    rewards = combine(outcome, torch.full((4,), 0.5), facts, config)
    # alpha 0.8: outcome 0.8, effort 0.2 * 0.5; the penalty 0.5 where there is no answer
    torch.testing.assert_close(rewards, torch.tensor([0.9, 0.1, -0.5, math.nan]), equal_nan=True)
