import dataclasses
import json
import math
from contextlib import nullcontext

import pytest

from eval.choice import SamplerChoice
from eval.runner import RESULTS, evaluate, run_tasks
from eval.tasks import Question, Task, load_task
from eval.tasks.countdown import attempts
from reward_models.countdown import CountdownVerifier
from reward_models.math_answers import MathVerifier
from reward_models.pool import VerifierPool
from rltoolkit.embedded.models import countdown_model, countdown_tokenizer, save_countdown_model
from rltoolkit.errors import DataError, ModelError, RolloutError
from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.types import SamplingParams

SHORT = SamplingParams(max_new_tokens=24)


@pytest.fixture(scope="module")
def tokenizer():
    return countdown_tokenizer()


@pytest.fixture(scope="module")
def backend(tokenizer):
    model = countdown_model(0, tokenizer, initializer_range=0.3)  # untrained: its answers are noise, but it ends
    return TransformersBackend(model, eos_token_ids=[tokenizer.eos_token_id], pad_token_id=tokenizer.pad_token_id)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_countdown_model(folder, 0, initializer_range=0.3)
    return folder


class Echo:
    """Judges by the reference alone, to bring about every outcome."""

    def check(self, response, reference):
        from reward_models.verdict import Verdict

        if reference == "raise":
            raise RuntimeError("broken")
        return {
            "right": Verdict.correct(response[:5] or "-"),
            "wrong": Verdict.wrong("x"),
            "none": Verdict.no_answer(),
            "bad": Verdict.bad_reference("unreadable"),
            "slow": Verdict.timeout("killed"),
        }[reference]


def _task(references, verifier=None, **options):
    questions = tuple(Question(f"q{i}", "1,2,3>6\n", reference) for i, reference in enumerate(references))
    return Task("made", questions, verifier or Echo(), prompt_format="text", sampling=SHORT, **options)


def test_the_numbers_of_an_evaluation(backend, tokenizer):
    result = evaluate(backend, tokenizer, _task(["right", "wrong", "none", "right"]), n=3)
    assert result.estimate.mean == 0.5
    assert result.estimate.n == 4
    assert result.outcomes == {"correct": 6, "wrong": 3, "no_answer": 3, "bad_reference": 0, "timeout": 0, "error": 0}
    assert (result.n_questions, result.samples_per_question, result.unscorable) == (4, 3, 0)
    assert 0 < result.mean_tokens <= 24
    assert 0 <= result.truncated <= 1
    assert result.mean_attempts is None
    assert result.seconds > 0


def test_what_could_not_be_scored_is_counted_and_left_out(backend, tokenizer):
    result = evaluate(backend, tokenizer, _task(["right", "bad", "slow", "raise", "wrong"]), n=2)
    assert result.estimate.mean == 0.5
    assert (result.estimate.n, result.n_questions, result.unscorable) == (2, 5, 6)
    assert {name: result.outcomes[name] for name in ("bad_reference", "timeout", "error")} == {
        "bad_reference": 2,
        "timeout": 2,
        "error": 2,
    }
    nothing = evaluate(backend, tokenizer, _task(["bad"]))
    assert math.isnan(nothing.estimate.mean)
    assert nothing.to_dict()["estimate"] == {"mean": None, "low": None, "high": None, "n": 0}
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_samples_are_written_with_all_that_was_seen(backend, tokenizer, tmp_path):
    task = _task(["right", "bad"], count_attempts=attempts)
    path = tmp_path / "new" / "samples.jsonl"
    result = evaluate(backend, tokenizer, task, n=2, samples_path=path, seed=3)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [(row["id"], row["sample"]) for row in rows] == [("q0", 0), ("q0", 1), ("q1", 0), ("q1", 1)]
    assert [row["outcome"] for row in rows] == ["correct", "correct", "bad_reference", "bad_reference"]
    for row in rows:
        assert tokenizer.decode(row["token_ids"], skip_special_tokens=True) == row["response"]
        assert (row["token_ids"][-1] == tokenizer.eos_token_id) == (row["stop_reason"] == "stop")
        assert row["prompt"] == "1,2,3>6\n"
    assert rows[0]["token_ids"] != rows[1]["token_ids"]
    assert result.mean_tokens == sum(len(row["token_ids"]) for row in rows) / 4
    assert result.mean_attempts == sum(row["attempts"] for row in rows) / 4
    assert result.truncated == sum(row["stop_reason"] == "length" for row in rows) / 4
    assert [p.name for p in path.parent.iterdir()] == ["samples.jsonl"]


def test_the_seed_repeats_an_evaluation_whatever_the_version(backend, tokenizer, tmp_path):
    task = dataclasses.replace(load_task("countdown", limit=12), sampling=SHORT)
    ids = []
    for seed, version in ((0, 0), (0, 5), (1, 0)):
        backend.sync(backend.model, version)
        path = tmp_path / f"{seed}-{version}.jsonl"
        evaluate(backend, tokenizer, task, n=2, seed=seed, samples_path=path)
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert {row["version"] for row in rows} == {version}
        ids.append([row["token_ids"] for row in rows])
    backend.sync(backend.model, 0)
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def test_a_pool_judges_as_the_verifier_in_process_does(backend, tokenizer):
    task = dataclasses.replace(load_task("countdown", limit=20), sampling=SHORT)
    here = evaluate(backend, tokenizer, task, n=2)
    with VerifierPool(CountdownVerifier(), workers=1) as pool:
        there = evaluate(backend, tokenizer, task, n=2, pool=pool)
    assert there.outcomes == here.outcomes
    assert sum(here.outcomes.values()) == 40
    assert here.mean_attempts is not None


def test_questions_go_in_chunks_with_progress_and_the_same_samples(backend, tokenizer, monkeypatch):
    task = _task(["right"] * 7)
    whole = evaluate(backend, tokenizer, task, n=2)
    calls = []
    monkeypatch.setattr("eval.runner.CHUNK_SAMPLES", 6)
    parts = evaluate(backend, tokenizer, task, n=2, progress=lambda *call: calls.append(call))
    assert calls == [(6, 14), (12, 14), (14, 14)]
    assert dataclasses.replace(parts, seconds=0) == dataclasses.replace(whole, seconds=0)


def test_greedy_gives_one_sample_and_is_the_same_for_every_seed(backend, tokenizer, tmp_path):
    task, greedy = _task(["right"] * 2), SamplingParams(temperature=0, max_new_tokens=24)
    texts = []
    for seed in (0, 1):
        path = tmp_path / f"{seed}.jsonl"
        evaluate(backend, tokenizer, task, sampling=greedy, seed=seed, samples_path=path)
        texts.append(path.read_text("utf-8"))
    assert texts[0] == texts[1]
    with pytest.raises(DataError, match="n is 4 at temperature 0"):
        evaluate(backend, tokenizer, task, n=4, sampling=greedy)
    with pytest.raises(DataError, match="n is 0"):
        evaluate(backend, tokenizer, task, n=0)


def test_a_chat_goes_through_the_chat_template(backend, tokenizer, tmp_path):
    task = dataclasses.replace(_task(["right"]), prompt_format="chat")
    with pytest.raises(ModelError, match=r"prompt_format of task made .*no chat template"):
        evaluate(backend, tokenizer, task)
    chatty = countdown_tokenizer()
    chatty.chat_template = (
        "{% for m in messages %}={{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    asked = []

    class Listening:
        """The real backend, remembering what it was asked."""

        def __getattr__(self, name):
            return getattr(backend, name)

        def generate(self, prompts, *rest):
            asked.extend(prompts)
            return backend.generate(prompts, *rest)

    evaluate(Listening(), chatty, task)
    assert asked == [chatty("=1,2,3>6\n>")["input_ids"]]


def test_run_tasks_writes_results_and_samples_and_overwrites_nothing(model_folder, tmp_path):
    output = tmp_path / "out"
    options = {
        "limit": 8,
        "max_new_tokens": 24,
        "show_progress": False,
        "sampler": SamplerChoice(device="cpu", dtype="float32"),
    }
    results = run_tasks(model_folder, ["countdown"], n=2, output=output, **options)
    assert [(r.task, r.n_questions, r.samples_per_question) for r in results] == [("countdown", 8, 2)]
    assert results[0].sampling == SamplingParams(temperature=1.0, max_new_tokens=24)
    written = json.loads((output / RESULTS).read_text("utf-8"))
    assert written["results"][0]["outcomes"] == results[0].outcomes
    assert written["results"][0]["estimate"]["mean"] == results[0].estimate.mean
    assert written["model"] == str(model_folder)
    assert (written["backend"], written["dtype"]) == ("transformers", "float32")
    assert "torch" in written["versions"]["packages"]
    assert len((output / "samples-countdown.jsonl").read_text("utf-8").splitlines()) == 16
    with pytest.raises(DataError, match=r"results\.json exists already; give another output folder"):
        run_tasks(model_folder, ["countdown"], output=output, **options)
    again = run_tasks(model_folder, ["countdown"], **options)
    assert again[0].sampling.greedy
    assert again[0].samples_per_question == 1


def test_results_say_which_servers_sampled(backend, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("eval.runner.open_sampler", lambda *_a, **_k: nullcontext(backend))
    servers = SamplerChoice("vllm-server", ("http://127.0.0.1:1", "http://127.0.0.1:2"))
    asked = {"limit": 2, "max_new_tokens": 4, "show_progress": False}
    run_tasks(model_folder, ["countdown"], output=tmp_path, sampler=servers, **asked)
    written = json.loads((tmp_path / RESULTS).read_text("utf-8"))
    assert (written["backend"], written["urls"]) == ("vllm-server", list(servers.urls))


def test_run_tasks_refuses_before_any_weight_is_loaded(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("eval.sampler.load_transformers_backend", lambda *_a, **_k: pytest.fail("weights were loaded"))
    cases = [
        (model_folder, {"tasks": []}, DataError, "no task given"),
        (model_folder, {"tasks": ["contdown"]}, DataError, "did you mean countdown"),
        (model_folder, {"tasks": ["countdown"], "n": 0}, DataError, "n is 0"),
        (model_folder, {"tasks": ["countdown"], "n": 2, "temperature": 0.0}, DataError, "n is 2 at temperature 0"),
        (model_folder, {"tasks": ["countdown"], "max_new_tokens": 0}, RolloutError, "max_new_tokens is 0"),
        (model_folder, {"tasks": ["countdown"], "prompt_format": "chat"}, ModelError, "no chat template"),
        (tmp_path / "nowhere", {"tasks": ["countdown"]}, ModelError, "nowhere"),
        (tmp_path, {"tasks": ["countdown"]}, ModelError, "no tokenizer"),
    ]
    for path, options, error, message in cases:
        with pytest.raises(error, match=message):
            run_tasks(path, **options, show_progress=False)


def test_a_math_task_runs_in_a_pool(backend, tokenizer):
    task = _task(["4", "5"], verifier=MathVerifier())
    with VerifierPool(task.verifier, workers=1) as pool:
        result = evaluate(backend, tokenizer, task, pool=pool)
    assert result.unscorable == 0
    assert sum(result.outcomes.values()) == 2
