"""The embedded world: exact arithmetic, honest check marks, disjoint splits, the same bytes everywhere."""

import random
import re

import pytest

from reward_models.countdown import CountdownVerifier
from reward_models.verdict import Outcome
from rltoolkit.embedded import countdown
from rltoolkit.embedded.models import countdown_model, countdown_tokenizer

PROBLEMS = countdown.problems("train") + countdown.problems("test")


def test_every_attempt_is_true_and_uses_each_number_once():
    for problem in random.Random(0).sample(PROBLEMS, 200):
        for attempt in countdown.attempts(problem.numbers):
            left, right = attempt.steps.split(",")
            for step in (left, right):
                expression, value = step.split("=")
                assert eval(expression) == int(value.lstrip("0") or "0")
            assert eval(attempt.expression) == attempt.value
            assert sorted(int(n) for n in re.findall(r"\d+", attempt.expression)) == sorted(problem.numbers)


def test_every_target_is_reached_and_the_verifier_agrees():
    verifier = CountdownVerifier()
    for problem in random.Random(1).sample(PROBLEMS, 200):
        for attempt in countdown.attempts(problem.numbers):
            verdict = verifier.check(rf"\boxed{{{attempt.expression}}}", problem.reference)
            assert (verdict.outcome is Outcome.CORRECT) is (attempt.value == problem.target)
        assert any(attempt.value == problem.target for attempt in countdown.attempts(problem.numbers))


def test_splits_share_no_set_of_numbers_and_are_large_enough():
    train, test = countdown.problems("train"), countdown.problems("test")
    assert not {p.numbers for p in train} & {p.numbers for p in test}
    assert len(test) >= 500
    assert len(train) >= 1000


def test_demonstrations_mark_truly_stop_on_a_hit_and_box_their_last_attempt():
    rng = random.Random(2)
    hits = misses = 0
    for problem in rng.sample(PROBLEMS, 400):
        lines = countdown.demonstration(countdown.shuffled(problem, rng), problem.target, rng).split("\n")
        by_line = {attempt.line(problem.target).strip(): attempt for attempt in countdown.attempts(problem.numbers)}
        shown = [by_line[line] for line in lines[:-1]]  # KeyError: a line with a false mark or value
        assert len(set(lines[:-1])) == len(lines) - 1 <= countdown.MAX_SHOWN
        assert lines[-1] == rf"\boxed{{{shown[-1].expression}}}"
        assert all(attempt.value != problem.target for attempt in shown[:-1])
        hits += shown[-1].value == problem.target
        misses += shown[-1].value != problem.target
    assert hits > 50  # both kinds are there
    assert misses > 50


def test_lines_match_the_published_pattern():
    problem = PROBLEMS[0]
    for attempt in countdown.attempts(problem.numbers):
        assert re.match(countdown.ATTEMPT_PATTERN, attempt.line(problem.target).rstrip("\n"))


def test_rows_repeat_with_the_seed_and_differ_without():
    first = countdown.countdown_rows("train", 50, seed=3)
    assert first == countdown.countdown_rows("train", 50, seed=3)
    assert first != countdown.countdown_rows("train", 50, seed=4)
    assert first[0] == {  # the same bytes on every machine
        "prompt": "4,6,3>42\n",
        "answer": "numbers=3,4,6;target=42",
        "completion": "6+3=9,9*4=36?42 no\n6-3=3,4+3=07?42 no\n6-3=3,4-3=01?42 no\n6-3=3,4*3=12?42 no\n"
        "6*3=18,18+4=22?42 no\n\\boxed{(6*3)+4}",
    }


def test_training_rows_go_on_beyond_the_number_of_problems():
    problems = len(countdown.problems("train"))
    rows = countdown.countdown_rows("train", problems + 5)
    assert len(rows) == problems + 5
    assert rows[0]["answer"] == rows[problems]["answer"]


@pytest.mark.parametrize("text", ["3,5,2>16\n", "5+3=8,8*2=16?16 ok\n\\boxed{(5+3)*2}", "1-1=0,9*0=0?8 no\n"])
def test_tokenizer_is_exact(text):
    tokenizer = countdown_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id not in ids


def test_model_repeats_with_the_seed_and_leaves_the_global_stream_alone():
    import torch

    tokenizer = countdown_tokenizer()
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = countdown_model(0, tokenizer)
    assert torch.rand(1) == expected
    again, other = countdown_model(0, tokenizer), countdown_model(1, tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
