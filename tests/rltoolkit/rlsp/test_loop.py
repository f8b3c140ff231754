"""A whole recipe whose sampler stands elsewhere: who is given which weights, when."""

import copy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from transformers import AutoModelForCausalLM

from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.errors import ModelError, RolloutError
from rltoolkit.phases import prepare_run
from rltoolkit.recipe import load_recipe
from rltoolkit.rlsp.critics.critic import Critic
from rltoolkit.rlsp.critics.files import save_critic
from rltoolkit.rlsp.loop import _config
from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.run.metrics import read_metrics
from rltoolkit.train import train

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "recipes" / "rlsp" / "quickstart.yaml"
SMALL = [
    "sft.data.limit=64", "sft.train.max_steps=2", "sft.train.per_device_train_batch_size=8", "data.train.limit=64",
    "train.max_steps=4", "train.per_device_train_batch_size=4", "train.steps_per_generation=2", "train.save_steps=4",
    "train.logging_steps=1", "train.critic_warmup_rollouts=0", "rollout.max_new_tokens=16", "eval.questions=4",
    "eval.every_steps=2", "sft.until_accuracy=0.9", "rollout.backend=vllm-server",
    "rollout.servers.urls=['http://127.0.0.1:1']",
]  # fmt: skip


class Servers:
    """Stands in for the client of servers: samples from a module of its own, with the weights of the last sync."""

    made = ()

    def __init__(self, options, *, eos_token_ids, weights_dir):
        self.model = countdown_model(77, countdown_tokenizer())
        self.inner = TransformersBackend(self.model, eos_token_ids=eos_token_ids, pad_token_id=0)
        self.options, self.calls, self.fails_at = options, [], None
        weights_dir.mkdir(parents=True)
        Servers.made = (*Servers.made, self)

    def look(self, source):
        self.calls.append("looked at")

    def sync(self, source, version):
        kind = "folder" if isinstance(source, Path) else "module"
        self.calls.append((kind, version))
        if version == Servers.fails_at:
            raise RolloutError("all servers are down")
        policy = AutoModelForCausalLM.from_pretrained(source) if kind == "folder" else source
        state = {name: value for name, value in policy.state_dict().items() if not name.startswith("critic.")}
        self.model.load_state_dict(copy.deepcopy(state))
        self.inner.version = version

    def generate(self, *request):
        return self.inner.generate(*request)

    def wake(self):
        self.inner.wake()

    def sleep(self):
        self.inner.sleep()

    def close(self):
        self.calls.append("closed")


@pytest.fixture
def servers(monkeypatch):
    module = ModuleType("servers")
    module.VLLMServerBackend = Servers
    module.ServerOptions = lambda **options: SimpleNamespace(**options)
    monkeypatch.setitem(sys.modules, "rltoolkit.rollout.servers.backend", module)
    Servers.made, Servers.fails_at = (), None
    return Servers


@pytest.mark.slow
def test_one_client_is_given_the_weights_of_every_phase_and_then_closed(servers, tmp_path):
    folder = train(load_recipe(QUICKSTART, [*SMALL, f"output_dir={tmp_path / 'run'}"]))
    (client,) = servers.made
    assert client.calls == [
        "looked at",  # before stage one costs time
        ("module", 0),  # accuracy at the end of stage one
        ("folder", 0),  # before
        ("module", 0),  # first rollout
        ("module", 2),  # evaluation after step 2
        ("module", 2),  # second rollout
        ("folder", 4),  # after
        "closed",
    ]
    records = read_metrics(folder / "metrics.jsonl")
    differences = [r["sampling/logp_difference_max"] for r in records if "sampling/logp_difference_max" in r]
    assert len(differences) == 2
    assert max(differences) < 1e-5
    assert not (folder / "rollout").exists()


@pytest.mark.slow
def test_a_run_whose_servers_go_away_ends_with_their_error_and_goes_on_later(servers, tmp_path):
    arguments = [*SMALL, "sft.until_accuracy=null", "eval.every_steps=null", f"output_dir={tmp_path / 'run'}"]
    servers.fails_at = 2
    with pytest.raises(RolloutError, match="all servers are down"):
        train(load_recipe(QUICKSTART, arguments))
    assert servers.made[0].calls[-1] == "closed"
    assert not (tmp_path / "run" / "rollout").exists()
    servers.fails_at = None
    folder = train(load_recipe(QUICKSTART, arguments))
    assert (folder / "summary.json").is_file()
    assert servers.made[1].calls == ["looked at", ("module", 0), ("module", 2), ("folder", 4), "closed"]


@pytest.mark.parametrize(
    ("backend", "by_trl"), [("transformers", False), ("vllm", False), ("vllm-server", False), ("trl-vllm", True)]
)
def test_trls_own_vllm_is_used_where_the_recipe_names_it(tmp_path, backend, by_trl):
    overrides = [*SMALL, "train.use_cpu=false", f"rollout.backend={backend}", f"output_dir={tmp_path / 'run'}"]
    assert _config(prepare_run(load_recipe(QUICKSTART, overrides))).use_vllm is by_trl


@pytest.mark.parametrize(
    ("options", "folder", "message"),
    [
        (["critic=shared"], "policy", "holds no saved critic; a critic of kind shared has the policy's backbone"),
        (["critic=shared"], "critic", "a critic of kind separate, 1 value(s) per position, hidden size 64; this run's"),
        (["advantage=decoupled"], "critic", "this run's is of kind separate, 2 value(s) per position"),
        ([], "critic", None),
        ([], "policy", None),
    ],
)
def test_a_critic_that_cannot_be_started_from_is_refused_before_stage_one(tmp_path, options, folder, message):
    policy = countdown_model(77, countdown_tokenizer())
    policy.save_pretrained(tmp_path / "policy")
    critic = Critic.from_policy(policy)
    save_critic(tmp_path, critic, critic.state_dict())
    settings = [f"train.{option}" for option in (*options, f"critic_model_name_or_path={tmp_path / folder}")]
    loaded = load_recipe(QUICKSTART, [*SMALL, *settings, f"output_dir={tmp_path / 'run'}"])
    if message is None:
        assert _config(prepare_run(loaded)).critic_model_name_or_path == str(tmp_path / folder)
        return
    with pytest.raises(ModelError) as caught:
        train(loaded)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()
