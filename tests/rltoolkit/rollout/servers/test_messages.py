import math

import pytest

from rltoolkit.rollout.servers.http import ServerError
from rltoolkit.rollout.servers.messages import Expected, read_completion
from rltoolkit.types import Sample, StopReason

EXPECTED = Expected(prompt=[5, 6], choices=2, max_new_tokens=3, eos_token_ids=(2, 3), vocabulary=32, version=7)


def choice(index, tokens=(8, 9, 2), reason="stop", logprobs=None, **others):
    values = [-0.5] * len(tokens) if logprobs is None else logprobs
    made = {"index": index, "token_ids": list(tokens), "finish_reason": reason, "logprobs": {"token_logprobs": values}}
    return made | others


def test_choices_come_in_the_order_of_their_numbers():
    answer = {"choices": [choice(1, (8, 9, 10), "length"), choice(0, prompt_token_ids=[5, 6], logprobs=[-1, -2.5, 0])]}
    assert read_completion(answer, EXPECTED) == [
        Sample((8, 9, 2), (-1.0, -2.5, 0.0), StopReason.STOP, 7),
        Sample((8, 9, 10), (-0.5, -0.5, -0.5), StopReason.LENGTH, 7),
    ]


def test_an_end_at_the_limit_is_an_end():
    answer = {"choices": [choice(0, (3,)), choice(1, (8, 9, 3))]}
    assert [sample.stop_reason for sample in read_completion(answer, EXPECTED)] == [StopReason.STOP] * 2


@pytest.mark.parametrize("answer", [None, [], {}, {"choices": None}, {"choices": [1, 2]}, {"error": "x"}, "html"])
def test_an_answer_without_choices(answer):
    with pytest.raises(ServerError, match="no list of choices"):
        read_completion(answer, EXPECTED)


@pytest.mark.parametrize("indices", [[], [0], [0, 1, 2], [0, 0], [1, 2], [0, None], [0, "1"], [0, True]])
def test_a_wrong_number_of_choices(indices):
    with pytest.raises(ServerError, match=r"choices .* 2 were asked for"):
        read_completion({"choices": [choice(index) for index in indices]}, EXPECTED)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (choice(1, ()), r"choice 1 has no token_ids but \[\]"),
        (choice(1) | {"token_ids": None}, "choice 1 has no token_ids but None"),
        (choice(1, (8, 32, 2)), "token id 32; the model has 0 to 31"),
        (choice(1, (8, -1, 2)), "token id -1"),
        (choice(1, (8, 1.0, 2)), r"token id 1\.0"),
        (choice(1, (8, True, 2)), "token id True"),
        (choice(1, prompt_token_ids=[5, 7]), r"answers another prompt: \[5, 7\]"),
        (choice(1, logprobs=[-1, -1]), "has 2 log-probs for 3 tokens"),
        (choice(1) | {"logprobs": None}, "has no log-probs for 3 tokens"),
        (choice(1, logprobs=[-1, math.nan, -1]), "log-probs that are not finite"),
        (choice(1, logprobs=[-1, None, -1]), "log-probs that are not finite"),
        (choice(1, logprobs=[-1, -math.inf, -1]), "log-probs that are not finite"),
        (choice(1, reason="abort"), "ended by 'abort' after 3 of 3 tokens"),
        (choice(1, (8, 9, 10)), "ended by 'stop'"),  # no end-of-sequence token
        (choice(1, (8, 2, 2)), r"end-of-sequence tokens at \[1, 2\]"),  # went on after one
        (choice(1, (8, 9), "length"), "ended by 'length' after 2 of 3 tokens"),  # cut by a limit of the server's own
        (choice(1, (8, 9, 2), "length"), "ended by 'length'"),
        (choice(1, (8, 9, 9, 2)), "ended by 'stop' after 4 of 3 tokens"),
    ],
)
def test_a_choice_that_does_not_fit_the_request(bad, message):
    with pytest.raises(ServerError, match=message):
        read_completion({"choices": [choice(0), bad]}, EXPECTED)
