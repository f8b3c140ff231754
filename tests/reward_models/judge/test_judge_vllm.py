"""The judge against a real vLLM server on the CPU, in an environment of its own (`make test-vllm`)."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from reward_models.judge import Judge, JudgeOutcome, JudgeSettings

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]
START_S = 240


def save_chat_model(folder):
    """A random Llama with a token per byte and a chat template: it writes noise, but a server takes it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>"]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(symbols),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=vocabulary["<s>"],
        eos_token_id=vocabulary["</s>"],
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server and its process; it is ended with the tests."""
    python = os.environ.get("RLTOOLKIT_VLLM_PYTHON")
    if not python:
        pytest.skip("RLTOOLKIT_VLLM_PYTHON names no interpreter with vllm; run `make test-vllm`")
    folder = tmp_path_factory.mktemp("judge-model")
    save_chat_model(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--served-model-name",
        "tiny",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--dtype", "float32"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_healthy(url, process, log: Path):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"the server was not healthy after {START_S} s: {log.read_text()[-2000:]}")


def settings(server, **changes):
    defaults = {"model": "tiny", "base_url": server[0], "temperature": 1.0, "max_tokens": 600, "timeout_s": 120.0}
    return JudgeSettings(**{**defaults, **changes})


def test_noise_under_a_schema_is_a_grade_or_a_counted_failure(server, tmp_path):
    responses = [f"Hello, number {number}" for number in range(8)]
    asked = settings(server, structured="json_schema", cache_dir=str(tmp_path / "kept"))
    with Judge(asked) as judge:
        grades = judge.rubric_many("Is it polite?", ["Hi"] * 8, responses)
        good = [grade for grade in grades if grade.outcome is JudgeOutcome.OK]
        assert {grade.outcome for grade in grades} <= {JudgeOutcome.OK, JudgeOutcome.TRUNCATED}
        assert good, "the schema lets random tokens spell a grade in most cases"
        assert all(grade.value in {1.0, 2.0, 3.0, 4.0, 5.0} and grade.completion_tokens for grade in good)
        assert judge.counts().requests == 8
    with Judge(asked) as judge:
        again = judge.rubric_many("Is it polite?", ["Hi"] * 8, responses)
        assert judge.counts().cache_hits == len(good)
        kept = [(old.value, new.value) for old, new in zip(grades, again, strict=True) if new.cached]
        assert len(kept) == len(good)
        assert all(old == new for old, new in kept)


def test_noise_without_a_schema_is_no_judgement(server):
    with Judge(settings(server, structured="off", max_tokens=40)) as judge:
        grades = judge.rubric_many("Is it polite?", ["Hi"] * 4, ["a", "b", "c", "d"])
    assert {grade.outcome for grade in grades} <= {JudgeOutcome.TRUNCATED, JudgeOutcome.BAD_ANSWER}
    assert all(grade.value is None for grade in grades)


def test_a_model_that_is_not_served_is_a_bad_request_and_not_asked_again(server):
    with Judge(settings(server, model="another")) as judge:
        (grade,) = judge.rubric_many("Is it polite?", ["Hi"], ["Hello"])
        assert grade.outcome is JudgeOutcome.BAD_REQUEST
        assert "another" in grade.reason
        assert judge.counts().retries == 0


def test_a_server_that_is_killed_is_unreachable(server):
    url, process = server
    with Judge(settings(server, max_retries=1, backoff_s=0.01)) as judge:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        (grade,) = judge.rubric_many("Is it polite?", ["Hi"], ["Hello"])
    assert grade.outcome is JudgeOutcome.UNREACHABLE, url
    assert grade.value is None
