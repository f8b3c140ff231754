import pytest

from eval.tasks import TASKS, Question, Task, load_task
from reward_models.countdown import CountdownVerifier
from rltoolkit.errors import DataError


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(
        DataError, match=r"unknown task 'countdwn'; did you mean countdown\? Known tasks: countdown, gsm8k"
    ):
        load_task("countdwn")
    with pytest.raises(DataError, match="limit is 0"):
        load_task("countdown", limit=0)


def test_every_known_task_can_be_imported():
    assert set(TASKS) == {"countdown", "gsm8k"}
    assert load_task("countdown", limit=3).name == "countdown"


def test_a_task_needs_questions_with_ids_of_their_own():
    with pytest.raises(DataError, match="has no questions"):
        Task("x", (), CountdownVerifier())
    same = (Question("a", "p", "r"), Question("b", "p", "r"), Question("a", "q", "r"))
    with pytest.raises(DataError, match="1 ids more than once, for instance 'a'"):
        Task("x", same, CountdownVerifier())
