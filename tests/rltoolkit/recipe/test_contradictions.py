"""Settings that cannot hold together."""

from pathlib import Path

import pytest

from rltoolkit.recipe import RecipeError, load_recipe
from rltoolkit.recipe.contradictions import OF_TRLS_VLLM, SERVER_FLAGS, SERVING_RULES
from rltoolkit.recipe.known import known_keys

RLSP = """\
method: rlsp
model: {name_or_path: some/model, lora: {r: 8}}
data: {train: {path: some/data, prompt: "{q}", reference: a}}
rewards: {outcome: {verifier: math}, exploration: {kind: length, target_tokens: 40}}
train: {use_cpu: true}
"""
SFT = """\
method: sft
model: {name_or_path: some/model}
sft: {data: {path: some/data, prompt: "{q}", completion: a}}
"""


def problems(tmp_path: Path, text: str, *overrides: str) -> list[tuple[str, str]]:
    """The key and the message of each mistake."""
    path = tmp_path / "r.yaml"
    path.write_text(text)
    try:
        load_recipe(path, overrides)
    except RecipeError as error:
        return [(problem.key, str(problem)) for problem in error.problems]
    return []


def keys(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    return [key for key, _ in problems(tmp_path, text, *overrides)]


def test_the_bases_are_fine(tmp_path: Path) -> None:
    assert keys(tmp_path, RLSP) == []
    assert keys(tmp_path, SFT) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["rewards=null"], ["rewards"]),
        (["data=null"], ["data"]),
        (["method=sft"], ["sft"]),
        (["train.critic_model_name_or_path=./nowhere"], ["train.critic_model_name_or_path"]),
        (["train.critic_model_name_or_path=embedded:countdown"], ["train.critic_model_name_or_path"]),
        (["train.critic_model_name_or_path=some/critic"], []),
        (["model.lora=null", "model.quantization=4bit", "train={}"], ["model.quantization"]),
        (["model.quantization=8bit"], ["model.quantization"]),
        (["model.dtype=float16"], ["model.dtype"]),
        (["train.fp16=true"], ["train.fp16"]),
        (["train={bf16: true, fp16: true}"], ["train.fp16"]),
        (["rollout.temperature=0"], ["rollout.temperature"]),
        (["rollout.top_p=0.9"], ["rollout.top_p"]),
        (["rollout.backend=vllm", "rollout.min_p=0.1", "rollout.top_k=5"], ["rollout.min_p", "rollout.top_k"]),
        (
            ["train.paper_compat=true", "rewards.exploration={kind: distinct_steps, target_steps: 3}"],
            ["rewards.exploration.kind"],
        ),
        (["train.advantage=decoupled", "rewards.exploration=null"], ["rewards.exploration"]),
        (["train.advantage=decoupled", "rewards.exploration={kind: none}"], ["rewards.exploration"]),
        (["rewards.exploration={kind: length}"], ["rewards.exploration.target_tokens"]),
        (["rewards.exploration={kind: none, target_tokens: 3}"], ["rewards.exploration.target_tokens"]),
        (["data.train.reference=null"], ["data.train.reference"]),
        (["train.critic=lora", "model.lora=null"], ["train.critic"]),
        (["data.train.prompt=null"], ["data.train.prompt"]),
    ],
)
def test_contradictions_of_rlsp(tmp_path: Path, overrides: list[str], expected: list[str]) -> None:
    assert sorted(keys(tmp_path, RLSP, *overrides)) == sorted(expected)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.paper_compat=true", "rewards.exploration={kind: length}"],
        ["train.paper_compat=true", "rewards.exploration=null"],
        ["train.paper_compat=true", "rewards.exploration={kind: judge, model: m, base_url: 'http://localhost/v1'}"],
        ["rewards.exploration={kind: none}"],
        ["train.critic=lora"],
        ["train.critic=shared", "model.lora=null"],
        ["rewards.exploration={kind: 'my_package.rewards:Mine', anything: 3}"],
        ["rewards.outcome={verifier: 'my_package.rewards:Mine', anything: 3}"],
        ["data.train={path: 'embedded:countdown'}"],
    ],
)
def test_what_is_no_contradiction(tmp_path: Path, overrides: list[str]) -> None:
    assert keys(tmp_path, RLSP, *overrides) == []


def test_sft_takes_its_settings_from_one_place(tmp_path: Path) -> None:
    assert keys(tmp_path, SFT, "train.max_steps=3") == []
    assert keys(tmp_path, SFT, "sft.train.max_steps=3") == []
    assert keys(tmp_path, SFT, "sft.train.max_steps=3", "train.max_steps=3") == ["sft.train"]


def test_a_slip_is_not_reported_twice(tmp_path: Path) -> None:
    """A broken section hides the contradictions that need it, and only those."""
    assert keys(tmp_path, SFT, "model.lora=5", "model.quantization=4bit", "sft.train={}") == ["model.lora"]
    assert keys(tmp_path, RLSP, "rewards.outcome=5", "rollout.temperature=0") == [
        "rewards.outcome",
        "rollout.temperature",
    ]


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        ("distributed_type: MULTI_GPU\nuse_cpu: false\n", False),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2}\n", False),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3}\n", True),
        ("distributed_type: FSDP\n", True),
    ],
)
def test_sharded_weights_are_refused_where_the_critic_lives_in_the_model(
    tmp_path: Path, content: str, refused: bool
) -> None:
    (tmp_path / "accelerate.yaml").write_text(content)
    found = keys(tmp_path, RLSP, "train={}", "launch={accelerate_config: accelerate.yaml, processes: 2}")
    assert found == (["launch.accelerate_config"] if refused else [])
    assert keys(tmp_path, SFT, "launch={accelerate_config: accelerate.yaml, processes: 2}") == []


@pytest.mark.parametrize("content", ["- 1\n", "a: [\n"])
def test_an_accelerate_config_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "accelerate.yaml").write_text(content)
    assert keys(tmp_path, RLSP, "launch.accelerate_config=accelerate.yaml") == ["launch.accelerate_config"]


SERVER = ("rollout.backend=vllm-server", "rollout.servers.urls=['http://127.0.0.1:8100']")
LONG_ANSWERS = ("eval.tasks=[countdown]", "eval.max_new_tokens=300")  # beside prompts of 512 tokens


def test_servers_without_urls_are_refused_but_for_whoever_starts_them(tmp_path: Path) -> None:
    [(key, message)] = problems(tmp_path, RLSP, "rollout.backend=vllm-server")
    assert key == "rollout.servers.urls"
    assert f"`rltoolkit serve {tmp_path / 'r.yaml'}`" in message
    load_recipe(tmp_path / "r.yaml", ["rollout.backend=vllm-server"], rules=SERVING_RULES)


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        ("[localhost:8100]", ["write 'http://localhost:8100'"]),
        ("[127.0.0.1:8100]", ["write 'http://127.0.0.1:8100'"]),
        ("['ftp://a:1']", ["write 'http://a:1'"]),
        ("['http://a:1/v1']", ["write 'http://a:1'; paths such as /v1"]),
        ("['http://a:1?x=1']", ["which has a path"]),
        ("['http://a:99999']", ["Port out of range"]),
        ("['http://a:b']", ["Port could not be cast"]),
        ("['http://:8100']", ["give scheme, host and port"]),
        ("['http://me:secret@a:1']", ["give scheme, host and port"]),
        ("['http://[::1:8100']", ["Invalid IPv6 URL"]),
        ("['http://a b:1']", ["give scheme, host and port"]),
        ("['http://a:1', 'http://A:1/']", ["after 'http://a:1', which is the same server"]),
        ("['http://a', 'http://a:80']", ["which is the same server"]),
        ("['http://a:1', 'http://a:1/']", ["names 'http://a:1' twice; name each server once"]),
        ("[a:1, b:2, 'http://c:3/v1']", ["'a:1' without", "'b:2' without", "'http://c:3/v1', which has a path"]),
    ],
)
def test_urls_that_are_none(tmp_path: Path, urls: str, says: list[str]) -> None:
    """Also for another backend: the mistake would wait for the day that it is switched."""
    for backend in ("vllm-server", "transformers"):
        found = problems(tmp_path, RLSP, f"rollout.backend={backend}", f"rollout.servers.urls={urls}")
        assert len(found) == len(says)
        for (key, message), text in zip(found, says, strict=True):
            assert key == "rollout.servers.urls"
            assert text in message


@pytest.mark.parametrize("urls", ["['http://a:1', 'https://a:1']", "['http://[::1]:8100/', 'http://gpu-7.local:80']"])
def test_urls_that_are_fine(tmp_path: Path, urls: str) -> None:
    assert keys(tmp_path, RLSP, "rollout.backend=vllm-server", f"rollout.servers.urls={urls}") == []
    loaded = load_recipe(tmp_path / "r.yaml", [f"rollout.servers.urls={urls}"])
    assert not [url for url in loaded.recipe.rollout.servers.urls if url.endswith("/")]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["rollout.backend=trl-vllm"], ["rollout.backend"]),  # the recipe says use_cpu
        (["rollout.backend=trl-vllm", "train={}"], []),
        (["rollout.backend=trl-vllm", "train={}", "rollout.engine.tensor_parallel=2"], ["rollout.engine"]),
        (["rollout.backend=vllm", "rollout.engine={tensor_parallel: 2}"], ["rollout.engine.tensor_parallel"]),
        ([*SERVER, "rollout.engine={tensor_parallel: 2}"], []),
        (["rollout.backend=vllm", "rollout.engine.args=[--seed=1]"], ["rollout.engine.args"]),
        ([*SERVER, "rollout.engine.args=[--max-num-seqs, '9']"], []),
        ([*SERVER, "rollout.engine.args=[--port=9, --max_model_len, '9', -tp]"], ["rollout.engine.args"] * 3),
        ([*SERVER, "rollout.engine.max_model_len=767"], ["rollout.engine.max_model_len"]),
        ([*SERVER, "rollout.engine.max_model_len=768"], []),
        (["rollout.engine.max_model_len=7"], []),
        ([*SERVER, "rollout.engine.max_model_len=768", *LONG_ANSWERS], ["rollout.engine.max_model_len"]),
        ([*SERVER, "rollout.engine.max_model_len=812", *LONG_ANSWERS], []),
        ([*SERVER, "rollout.engine.max_model_len=768", "eval.max_new_tokens=300"], []),  # no task is asked
        ([*SERVER, "rollout.engine.sleep=false"], ["rollout.engine.sleep"]),
        (["rollout.backend=vllm", "rollout.engine.sleep=false"], []),
        ([*SERVER, "rollout.temperature=2.5"], ["rollout.temperature"]),
        (["rollout.backend=vllm", "rollout.temperature=0.005"], ["rollout.temperature"]),
        ([*SERVER, "rollout.temperature=2"], []),
        (["rollout.temperature=2.5"], []),
        (["train.vllm_importance_sampling_clip_max=2.0"], ["train.vllm_importance_sampling_clip_max"]),
        (["train.repetition_penalty=1.2"], ["train.repetition_penalty"]),
        ([*SERVER, "train.generation_kwargs={num_beams: 2}"], ["train.generation_kwargs"]),
        (["train.repetition_penalty=1.0", "train.generation_kwargs=null"], []),
        (["rollout.backend=trl-vllm", "train={repetition_penalty: 1.2}"], []),
        ([*SERVER, "train.vllm_mode=server"], ["train.vllm_mode"]),
        ([*SERVER, "train.vllm_importance_sampling_mode=token_truncate"], []),
        (["rollout.backend=vllm", "train.vllm_tensor_parallel_size=2"], ["train.vllm_tensor_parallel_size"]),
        ([*SERVER, "rollout.servers.wait_s=1800", "launch.processes=2"], ["rollout.servers.wait_s"]),
        ([*SERVER, "rollout.servers.wait_s=1800", "launch.processes=2", "train.ddp_timeout=1801"], []),
        ([*SERVER, "rollout.servers.wait_s=299", "launch.processes=2", "train.ddp_timeout=300"], []),
        ([*SERVER, "launch.processes=2", "train.ddp_timeout=300"], ["rollout.servers.wait_s"]),
        ([*SERVER, "rollout.servers.wait_s=9999"], []),
        (["rollout.servers.wait_s=9999", "launch.processes=2"], []),
        ([*SERVER, "rollout.servers.devices=[0, 0]"], ["rollout.servers.devices"]),
        ([*SERVER, "rollout.servers.devices=[-1]"], ["rollout.servers.devices"]),
        (
            [*SERVER, "rollout.servers.devices=[0, 1, 2]", "rollout.engine.tensor_parallel=2"],
            ["rollout.servers.devices"],
        ),
        ([*SERVER, "rollout.servers.devices=[2, 3]", "rollout.engine.tensor_parallel=2"], []),
        ([*SERVER, "rollout.servers.devices=[]"], []),
    ],
)
def test_settings_of_a_backend_that_it_cannot_follow(tmp_path: Path, overrides: list[str], expected: list[str]) -> None:
    assert keys(tmp_path, RLSP, *overrides) == expected


def test_trls_own_vllm_is_for_rlsp(tmp_path: Path) -> None:
    assert keys(tmp_path, SFT, "rollout.backend=trl-vllm") == ["rollout.backend"]


def test_all_mistakes_of_the_rollout_come_at_once(tmp_path: Path) -> None:
    wrong = ["rollout.servers={urls: [a:1], port: 0, retries: -1, wait_s: x}", "rollout.engine={dtype: int8, args: 3}"]
    assert sorted(keys(tmp_path, RLSP, "rollout.backend=vllm-server", *wrong)) == [
        "rollout.engine.args",
        "rollout.engine.dtype",
        "rollout.servers.port",
        "rollout.servers.retries",
        "rollout.servers.urls",
        "rollout.servers.wait_s",
    ]


def test_the_keys_that_are_suggested_are_keys() -> None:
    suggested = {key for key in (*SERVER_FLAGS.values(), *OF_TRLS_VLLM.values()) if key}
    assert len(suggested) > 9
    assert suggested <= set(known_keys())


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("rollout.engine.enforce_eagr", "did you mean rollout.engine.enforce_eager?"),
        ("rollout.engine.temperature", "did you mean rollout.temperature?"),
        ("rollout.engine.max_num_seqs", "remove it; rollout.engine has dtype, gpu_memory_utilization, max_model_len, "),
        ("rollout.servers.nope", "remove it; rollout.servers has urls, "),
    ],
)
def test_an_unknown_key_is_answered_by_what_there_is(tmp_path: Path, key: str, says: str) -> None:
    [(found, message)] = problems(tmp_path, RLSP, f"{key}=1")
    assert found == key
    assert says in message
