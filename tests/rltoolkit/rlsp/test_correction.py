"""Importance weights for samples of another program: worked by hand."""

import math

import pytest
import torch

from rltoolkit.rlsp.correction import RATIO_MODES, importance_ratio, logp_difference, weight_facts

# log-ratios: ln 2, -ln 2, and one beyond the response; then ln 5 and ln 2
TRAINER = torch.tensor([[-1.0, -1.0, -9.0], [-1.0, -1.0, -1.0]])
SAMPLER = TRAINER - torch.tensor([[2.0, 0.5, 7.0], [5.0, 2.0, 1.0]]).log()
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def ratio(mode, **bounds):
    return importance_ratio(TRAINER, SAMPLER, MASK, mode=mode, **bounds)


def close(tensor, expected):
    torch.testing.assert_close(tensor, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_tokens_have_a_ratio_each_and_what_is_no_response_has_one():
    close(ratio("token_truncate", high=None), [[2.0, 0.5, 1.0], [5.0, 2.0, 1.0]])


def test_a_response_has_the_product_of_its_tokens():
    close(ratio("sequence_truncate", high=None), [[1.0], [10.0]])


def test_truncation_clamps_to_both_bounds():
    close(ratio("token_truncate", low=0.75, high=3.0), [[2.0, 0.75, 1.0], [3.0, 2.0, 1.0]])
    close(ratio("sequence_truncate", high=3.0), [[1.0], [3.0]])


def test_masking_sets_to_zero_what_is_outside():
    close(ratio("token_mask", low=0.75, high=3.0), [[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    close(ratio("sequence_mask", high=3.0), [[1.0], [0.0]])
    close(ratio("sequence_mask", low=3.0, high=None), [[0.0], [10.0]])


def test_the_bounds_themselves_are_inside():
    two = torch.tensor([[2.0]]).log()
    bound = two.exp().item()
    for bounds in ({"high": bound}, {"low": bound, "high": None}):
        assert importance_ratio(two, torch.zeros(1, 1), torch.ones(1, 1), mode="token_mask", **bounds) == bound


def test_the_default_bound_is_that_of_trl():
    close(ratio("token_mask"), [[2.0, 0.5, 1.0], [0.0, 2.0, 1.0]])


@pytest.mark.parametrize("mode", RATIO_MODES)
def test_equal_log_probs_have_weight_one(mode):
    same = importance_ratio(TRAINER, TRAINER, MASK, mode=mode)
    assert torch.equal(same, torch.ones_like(same))


@pytest.mark.parametrize("mode", RATIO_MODES)
def test_a_log_prob_that_is_no_number_corrects_nothing(mode):
    sampler = TRAINER.clone()
    sampler[0, 0] = math.nan
    weights = importance_ratio(TRAINER, sampler, MASK, mode=mode)
    assert torch.equal(weights, torch.ones_like(weights))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'tokens'; give one of token_truncate"):
        ratio("tokens")


def test_differences_are_of_response_tokens_alone():
    gap = logp_difference(TRAINER, SAMPLER, MASK)
    assert gap.total.item() == pytest.approx(3 * math.log(2) + math.log(5), abs=1e-6)
    assert gap.tokens.item() == 5
    assert gap.largest.item() == pytest.approx(math.log(5), abs=1e-6)


def test_no_tokens_differ_by_nothing():
    gap = logp_difference(TRAINER, torch.full_like(TRAINER, math.nan), MASK)
    assert (gap.total.item(), gap.tokens.item(), gap.largest.item()) == (0, 0, 0)


def facts(mode, **bounds):
    return [value.item() for value in weight_facts(ratio(mode, **bounds), MASK, mode=mode, **bounds)]


def test_weights_are_told_over_the_tokens_that_count():
    # 2, 3/4 (clipped); 3 (clipped), 2, 1
    assert facts("token_truncate", low=0.75, high=3.0) == pytest.approx([8.75, 2, 0, 5, 0.75, 3.0])
    # 2, 0; 0, 2, 1
    assert facts("token_mask", low=0.75, high=3.0) == pytest.approx([5.0, 0, 2, 5, 0.0, 2.0])
    # 1 for the two tokens of the first response; 10 is refused for the three of the second
    assert facts("sequence_mask", high=3.0) == pytest.approx([2.0, 0, 3, 5, 0.0, 1.0])
    assert facts("sequence_truncate", high=3.0) == pytest.approx([11.0, 3, 0, 5, 1.0, 3.0])


def test_without_a_counted_token_there_is_no_weight():
    none = weight_facts(torch.ones(2, 1), torch.zeros(2, 3), mode="sequence_mask")
    assert none.tokens == 0
    assert (none.lowest, none.highest) == (math.inf, -math.inf)
