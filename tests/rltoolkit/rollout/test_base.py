import pytest

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.base import check_request, request_seed, stream_seed
from rltoolkit.types import SamplingParams

PARAMS = SamplingParams(max_new_tokens=8)


def test_a_request_seed_is_repeated_by_a_restart_and_changed_by_every_argument():
    seed = request_seed(0, 1, [1, 2], 3)
    assert seed == request_seed(0, 1, (1, 2), 3) == 4052197994340995553
    others = [
        request_seed(1, 1, [1, 2], 3),
        request_seed(0, 2, [1, 2], 3),
        request_seed(0, 1, [12], 3),
        request_seed(0, 1, [1, 2], 4),
    ]
    assert len({seed, *others}) == 5
    assert all(0 <= s < 2**63 for s in others)


def test_streams_of_a_request_differ():
    streams = {stream_seed(seed, k) for seed in range(100) for k in range(100)}
    assert len(streams) == 10_000
    assert all(0 <= s < 2**63 for s in streams)


@pytest.mark.parametrize(
    ("prompts", "n", "seeds", "message"),
    [
        ([[1]], 0, [0], "n is 0; ask for at least 1"),
        ([[1], [2]], 1, [0], "1 seeds for 2 prompts"),
        ([[1], []], 1, [0, 1], "prompt 1 has no tokens"),
        ([[1] * 9], 1, [0], "prompt 0 has 9 tokens.*context of 16; shorten"),
        ([[1, 32]], 1, [0], "token ids from 1 to 32, the model knows 0 to 31"),
        ([[-1, 3]], 1, [0], "token ids from -1 to 3"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(prompts, n, seeds, message):
    with pytest.raises(RolloutError, match=message):
        check_request(prompts, n, PARAMS, seeds, vocabulary=32, context=16)


def test_a_request_at_the_limits_passes():
    check_request([[0, 31] * 4], 1, PARAMS, [0], vocabulary=32, context=16)
    check_request([[10**6] * 99], 1, PARAMS, [0], vocabulary=None, context=None)
