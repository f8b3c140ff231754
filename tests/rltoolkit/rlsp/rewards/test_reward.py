"""The reward tables of the RLSP method note, and what must hold for every input."""

import pytest
import torch

from rltoolkit.rlsp.rewards.reward import decoupled_reward, paper_reward, token_rewards

CORRECT, WRONG, NO_BOX = (1.0, 1), (0.0, 1), (0.0, 0)
LENGTHS = [200.0, 500.0, 1000.0, 2000.0, 4000.0]


def paper(case, length, judge=None, **options):
    outcome, has_box = case
    score = None if judge is None else torch.tensor([judge])
    reward = paper_reward(torch.tensor([outcome]), torch.tensor([has_box]), torch.tensor([length]), score, **options)
    return reward.item()


@pytest.mark.parametrize(
    ("case", "without_length", "with_length"),
    [
        (CORRECT, 1.0, [-4.0, -1.0, 0.0, 0.5, 0.75]),
        (WRONG, 0.0, [-5.0, -2.0, -1.0, -0.5, -0.25]),
        (NO_BOX, -0.5, [-5.5, -2.5, -1.5, -1.0, -0.75]),
    ],
)
def test_paper_reward_table(case, without_length, with_length):
    assert paper(case, 1234.0, c=0) == pytest.approx(without_length)
    for length, expected in zip(LENGTHS, with_length, strict=True):
        assert paper(case, length) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("judge", "c", "length", "expected"),
    [
        (0.0, 0, 1.0, (0.8, 0.0, -0.4)),
        (0.5, 0, 1.0, (0.9, 0.1, -0.3)),
        (float("nan"), 0, 1.0, (0.9, 0.1, -0.3)),
        (1.0, 0, 1.0, (1.0, 0.2, -0.2)),
        (0.0, 1000, 4000.0, (0.6, -0.2, -0.6)),
        (0.5, 1000, 4000.0, (0.7, -0.1, -0.5)),
        (1.0, 1000, 4000.0, (0.8, 0.0, -0.4)),
        (1.0, 1000, 1000.0, (0.2, -0.6, -1.0)),
    ],
)
def test_paper_reward_with_a_judge(judge, c, length, expected):
    found = tuple(paper(case, length, judge, c=c) for case in (CORRECT, WRONG, NO_BOX))
    assert found == pytest.approx(expected, abs=1e-6)


def test_paper_reward_clips_short_responses():
    assert [paper(case, 50.0) for case in (CORRECT, WRONG, NO_BOX)] == [-10.0, -10.0, -10.0]
    assert [paper(case, 100.0) for case in (CORRECT, WRONG, NO_BOX)] == pytest.approx([-9.0, -10.0, -10.0])


def test_paper_reward_of_a_box_at_character_zero_is_not_neutral():
    assert paper(CORRECT, 0.0) == -10.0


def test_paper_reward_grows_with_length_towards_its_base():
    rewards = [paper(WRONG, length) for length in (101.0, 400.0, 5000.0, 1e9)]
    assert rewards == sorted(rewards)
    assert rewards[-1] == pytest.approx(0.0, abs=1e-5)


def test_decoupled_reward_ranks_any_correct_answer_over_any_wrong_one():
    exploration = torch.linspace(0, 1, 21)
    ones, zeros = torch.ones(21), torch.zeros(21)
    correct = decoupled_reward(ones, exploration, ones)
    wrong = decoupled_reward(zeros, exploration, ones)
    unanswered = decoupled_reward(zeros, exploration, zeros)
    assert correct.min() > wrong.max()
    assert wrong.min() > unanswered.max()
    assert correct.min() == pytest.approx(0.8)
    assert wrong.max() == pytest.approx(0.2)


def test_decoupled_reward_pays_no_exploration_without_an_answer():
    reward = decoupled_reward(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0]), no_answer_penalty=0.3)
    assert reward.item() == pytest.approx(-0.3)


def test_decoupled_reward_keeps_float64_and_unscorable():
    reward = decoupled_reward(torch.tensor([float("nan"), 1.0], dtype=torch.float64), torch.zeros(2), torch.ones(2))
    assert reward.dtype == torch.float64
    assert reward[0].isnan()
    assert reward[1].item() == 0.8


LOGPS = torch.tensor([[-1.0, -0.5, -2.0, -0.1]], dtype=torch.float64)
REF_LOGPS = torch.tensor([[-1.2, -0.4, -2.4, -0.2]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.94, [-0.010, 0.005, -0.020, 0.935]), (-0.744, [-0.010, 0.005, -0.020, -0.749])],
)
def test_token_rewards_match_the_worked_numbers(score, expected):
    found = token_rewards(torch.tensor([score], dtype=torch.float64), LOGPS, REF_LOGPS, torch.ones(1, 4), kl_coef=0.05)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-12)


def test_token_rewards_sum_to_score_minus_kl():
    score = torch.tensor([0.7], dtype=torch.float64)
    found = token_rewards(score, LOGPS, REF_LOGPS, torch.ones(1, 4), kl_coef=0.05)
    assert found.sum().item() == pytest.approx(0.7 - 0.05 * (LOGPS - REF_LOGPS).sum().item())


def test_a_token_likelier_than_under_the_reference_is_charged():
    found = token_rewards(
        torch.zeros(1),
        torch.tensor([[-1.0, -1.0]]),
        torch.tensor([[-2.0, -0.5]]),
        torch.ones(1, 2),
        kl_coef=1.0,
    )
    assert found[0, 0] < 0 < found[0, 1]


@pytest.mark.parametrize("reference", [None, LOGPS])
def test_without_divergence_only_the_last_counted_token_is_paid(reference):
    mask = torch.tensor([[1, 1, 1, 0]])
    found = token_rewards(torch.tensor([2.0]), LOGPS, reference, mask, kl_coef=0.05)
    assert found.tolist() == [[0.0, 0.0, 2.0, 0.0]]


def test_a_row_that_does_not_count_gets_nothing():
    found = token_rewards(torch.tensor([2.0]), LOGPS, REF_LOGPS, torch.zeros(1, 4), kl_coef=0.05)
    assert found.abs().sum() == 0
