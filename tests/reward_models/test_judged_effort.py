"""Effort judged by a language model, against a real server."""

import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_server import JudgeServer, running_judge_server

from reward_models import ExplorationReward, VerifierError
from reward_models.exploration_func import as_exploration_func
from reward_models.judge import EFFORT, JudgeOutcome
from reward_models.judged_effort import JudgedEffort

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[JudgeServer]:
    with running_judge_server() as running:
        yield running


@pytest.fixture
def effort(server: JudgeServer) -> Iterator[JudgedEffort]:
    server.forget()
    reward = JudgedEffort(server.settings())
    yield reward
    reward.close()


def test_scores_keep_the_order_and_a_failure_has_none(effort):
    scores = effort.score_many(["do: score 0.5", "do: refuse", "do: score 0.25"], [10, 20, 30])
    assert scores == [0.5, None, 0.25]
    assert [judgement.outcome for judgement in effort.last_judgements][1] is JudgeOutcome.REFUSED
    assert effort.counts().failures == 1


def test_one_response(effort):
    assert isinstance(effort, ExplorationReward)
    assert effort.score("do: score 0.5", 10) == 0.5
    with pytest.raises(VerifierError, match=r"the judge gave no score \(refused\): .*score_many"):
        effort.score("do: refuse", 10)


def test_the_judge_sees_the_criterion_and_the_response_alone(effort, server):
    effort.score_many(["do: score 0.5\nand so on"], [10])
    [request] = server.requests()
    system, user = (message["content"] for message in request["body"]["messages"])
    assert EFFORT in system
    assert "do: score 0.5\nand so on" in user
    assert len(user) < 150


def test_no_method_takes_a_reference():
    # The reward is kept apart from correctness by type: what is never passed cannot be paid for.
    assert list(inspect.signature(JudgedEffort.score).parameters) == ["self", "response", "token_count"]
    assert list(inspect.signature(JudgedEffort.score_many).parameters) == ["self", "responses", "token_counts"]


def test_from_the_keys_of_a_recipe(server, monkeypatch):
    reward = JudgedEffort.from_options(model="judge", base_url=server.url, criterion="How funny is it?")
    with reward.judge:
        assert reward.score("do: score 0.5", 10) == 0.5
    assert "How funny is it?" in server.requests()[-1]["body"]["messages"][0]["content"]
    with pytest.raises(TypeError, match="modell"):
        JudgedEffort.from_options(modell="judge")
    with pytest.raises(VerifierError, match="criterion is ''"):
        JudgedEffort.from_options(model="judge", base_url=server.url, criterion="")
    monkeypatch.delenv("MY_JUDGE_KEY", raising=False)
    with pytest.raises(VerifierError, match="MY_JUDGE_KEY, which is not set"):
        JudgedEffort.from_options(model="judge", base_url=server.url, api_key_env="MY_JUDGE_KEY")


def test_as_a_reward_function_of_trl(effort, server):
    metrics = {}
    function = as_exploration_func(effort)
    completions = ["do: score 0.5", "do: length", [{"role": "assistant", "content": "do: score 0.25"}]]
    scores = function(["q"] * 3, completions, [[1, 2]] * 3, answer=["secret"] * 3, log_metric=metrics.__setitem__)
    assert scores == [0.5, None, 0.25]
    assert metrics["exploration/JudgedEffort/failed"] == pytest.approx(1 / 3)
    assert metrics["exploration/JudgedEffort/ok"] == pytest.approx(2 / 3)
    assert metrics["exploration/JudgedEffort/truncated"] == pytest.approx(1 / 3)
    assert metrics["exploration/JudgedEffort/refused"] == metrics["exploration/JudgedEffort/cached"] == 0.0
    assert metrics["exploration/JudgedEffort/tokens"] == effort.counts().prompt_tokens / 3 + (
        effort.counts().completion_tokens / 3
    )
    assert "secret" not in str(server.requests())


def test_metrics_tell_of_what_was_asked_in_the_last_call(effort):
    for retries in (1, 0):  # the second time the server does not fail any more
        effort.score_many(["do: score 0.5"] * 3 + ["do: times 1 status 500 then score 0.25"], [10] * 4)
        assert effort.metrics()["tokens"] == 2 * 110 / 4
        assert effort.metrics()["retries"] == retries / 4
    assert effort.counts().prompt_tokens == 400
    effort.score_many([], [])
    assert effort.metrics()["tokens"] == 0.0


def test_a_copy_through_pickle_asks_for_itself(effort):
    effort.score("do: score 0.5", 10)
    copy = pickle.loads(pickle.dumps(effort))
    assert copy.score("do: score 0.75", 10) == 0.75
    assert copy.counts().requests == 1
    copy.close()


@pytest.mark.slow
@pytest.mark.parametrize("paper", [False, True])
def test_a_run_goes_on_where_the_judge_fails(server, tmp_path, paper):
    from rltoolkit.recipe import load_recipe
    from rltoolkit.run.metrics import read_metrics
    from rltoolkit.train import train

    server.forget()
    small = [
        "sft.data.limit=256", "sft.train.max_steps=4", "sft.train.per_device_train_batch_size=16",
        "data.train.limit=64", "train.max_steps=4", "train.per_device_train_batch_size=4",
        "train.steps_per_generation=2", "train.logging_steps=1", "train.critic_warmup_rollouts=1",
        "rollout.max_new_tokens=24", "eval.questions=4",
    ]  # fmt: skip
    options = f"kind: judge, model: judge, base_url: '{server.url}', max_retries: 0, concurrency: 1"
    # The first rollout of eight loses three of its judgements.
    overrides = [
        f"rewards.exploration={{{options}}}",
        "rewards.exploration.criterion='do: times 3 refuse then score 1'",
    ]
    folder = train(
        load_recipe(
            ROOT / "recipes" / "rlsp" / "quickstart.yaml",
            [*small, *overrides, f"output_dir={tmp_path / 'run'}", f"train.paper_compat={str(paper).lower()}"],
        )
    )
    records = [record for record in read_metrics(folder / "metrics.jsonl") if record["phase"] == "train"]
    failed = [record["exploration/JudgedEffort/failed"] for record in records if "reward/exploration" in record]
    paid = [record["reward/exploration"] for record in records if "reward/exploration" in record]
    assert max(failed) == pytest.approx(3 / 8)
    assert set(paid) == {1.0}  # the mean over those that were judged: a failure is no number
    assert len({request["body"]["messages"][1]["content"] for request in server.requests()}) > 3
