"""Where a critic's weights start, and that a critic of another form is refused by name."""

import copy

import pytest
import torch
from peft import LoraConfig
from transformers import GPT2Config, GPT2Model, LlamaForSequenceClassification

from reward_models.critics.value_model import ValueModel
from rltoolkit.errors import ModelError
from rltoolkit.rlsp.critics.critic import Critic, SharedCritic
from rltoolkit.rlsp.critics.files import CriticForm, load_critic, save_critic, saved_form
from rltoolkit.rlsp.critics.start import critic_from, refuse_other_tokens

IDS = torch.tensor([[5, 6, 7, 8]])
MASK = torch.ones_like(IDS)
LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


def saved(folder, critic):
    save_critic(folder, critic, critic.state_dict())
    return folder / "critic"


@pytest.fixture
def reward_model(policy, tmp_path):
    def make(labels=1):
        torch.manual_seed(4)
        config = type(policy.config)(**policy.config.to_dict() | {"num_labels": labels})
        model = LlamaForSequenceClassification(config)
        model.save_pretrained(tmp_path / "reward-model")
        return model, str(tmp_path / "reward-model")

    return make


def test_a_reward_model_gives_backbone_and_head(reward_model):
    model, folder = reward_model()
    critic = critic_from(folder, dtype=torch.float32)
    expected = model(IDS, attention_mask=MASK).logits[:, 0]  # the score of a sequence is that of its last token
    torch.testing.assert_close(critic(IDS, MASK)[:, -1], expected)


def test_with_two_streams_a_reward_model_scores_correctness(reward_model):
    model, folder = reward_model()
    values = critic_from(folder, seed=1, streams=2, dtype=torch.float32)(IDS, MASK)[:, -1]
    torch.testing.assert_close(values[:, 0], model(IDS, attention_mask=MASK).logits[:, 0])
    assert not torch.equal(values[:, 1], values[:, 0])


def test_a_classifier_of_several_classes_is_no_reward_model(reward_model):
    with pytest.raises(ModelError, match="give a reward model: one label"):
        critic_from(reward_model(labels=3)[1])


def test_a_folder_of_nothing_is_named(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        critic_from(str(tmp_path))


def test_a_critic_says_of_which_form_it_is(policy, tmp_path):
    folder = saved(tmp_path, Critic.from_policy(policy, streams=2))
    assert saved_form(folder) == CriticForm("separate", streams=2, width=16)
    assert str(saved_form(folder)) == "kind separate, 2 value(s) per position, hidden size 16"
    policy.save_pretrained(tmp_path / "policy")
    assert saved_form(tmp_path / "policy") is None
    assert saved_form(tmp_path / "nowhere") is None


@pytest.mark.parametrize("kind", ["separate", "shared", "lora"])
def test_every_kind_starts_from_a_saved_one_of_its_own(make_trainer, policy, tmp_path, kind):
    options = {"critic": kind, "peft_config": LORA if kind == "lora" else None}
    first = make_trainer(**options, model=copy.deepcopy(policy)).critic
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.01)
    folder = saved(tmp_path, first)
    second = make_trainer(**options, critic_model_name_or_path=str(folder), seed=9).critic
    assert second is not first
    assert second.state_dict().keys() == first.state_dict().keys()
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("separate", {"advantage": "decoupled", "exploration": True}, r"2 value\(s\) per position"),
        ("shared", {}, "of kind shared, .*, hidden size 16"),
        ("lora", {}, "of kind lora, 1 .* r 16, alpha 32"),
    ],
)
def test_a_critic_of_another_form_is_refused_by_both_names(make_trainer, policy, tmp_path, kind, options, message):
    folder = saved(tmp_path, Critic.from_policy(policy))
    options = dict(options)
    if options.pop("exploration", False):
        options["exploration"] = lambda completions, **_: [0.0] * len(completions)
    with pytest.raises(ModelError, match=message) as error:
        make_trainer(
            critic=kind,
            critic_model_name_or_path=str(folder),
            peft_config=LORA if kind == "lora" else None,
            **options,
        )
    assert "kind separate, 1 value(s) per position, hidden size 16" in str(error.value)


def test_another_rank_and_another_scale_are_refused(make_trainer, policy, tmp_path):
    options = {"critic": "lora", "peft_config": LORA}
    folder = saved(tmp_path, make_trainer(**options, model=copy.deepcopy(policy)).critic)
    options["critic_model_name_or_path"] = str(folder)
    with pytest.raises(ModelError, match=r"r 16, alpha 32\.0; this run's is of .*r 8, alpha 32"):
        make_trainer(**options, model=copy.deepcopy(policy), critic_lora_r=8)
    with pytest.raises(ModelError, match=r"r 16, alpha 32\.0; this run's is of .*r 16, alpha 4"):
        make_trainer(**options, model=copy.deepcopy(policy), critic_lora_alpha=4)


def test_a_scale_of_many_digits_is_that_of_its_checkpoint(make_trainer, policy, tmp_path):
    options = {"critic": "lora", "peft_config": LORA, "critic_lora_alpha": 100 / 3}
    saved(tmp_path, make_trainer(**options, model=copy.deepcopy(policy)).critic)
    load_critic(tmp_path, make_trainer(**options, model=copy.deepcopy(policy)).critic)
    with pytest.raises(ModelError, match=r"alpha 33\.333333333333336, and this run has one of .* alpha 33\.33;"):
        load_critic(tmp_path, make_trainer(**options | {"critic_lora_alpha": 33.33}).critic)


def test_a_checkpoint_of_another_kind_of_critic_is_refused(policy, tmp_path):
    saved(tmp_path, SharedCritic(policy))
    with pytest.raises(ModelError, match=r"of kind shared, .* this run has one of kind separate"):
        load_critic(tmp_path, Critic.from_policy(policy))


def test_what_is_left_of_a_saved_critic_is_named(policy, tmp_path):
    folder = saved(tmp_path, Critic.from_policy(policy))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"critic, which cannot be read: .*config\.json"):
        critic_from(str(folder))
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read: .* the file is broken"):
        critic_from(str(folder))
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read: .* the file is broken"):
        load_critic(tmp_path, Critic.from_policy(policy))


def test_a_value_critic_starts_one_without_a_bound_alone(policy, tmp_path):
    free = ValueModel.from_causal_lm(policy, seed=5)
    free.save(tmp_path / "free")
    torch.testing.assert_close(critic_from(str(tmp_path / "free"))(IDS, MASK), free(IDS, MASK))
    ValueModel.from_causal_lm(policy, squash="tanh").save(tmp_path / "bounded")
    with pytest.raises(ModelError, match="go through tanh; RLSP's have no bound"):
        critic_from(str(tmp_path / "bounded"))


def test_a_policys_folder_is_no_start_of_a_head_on_the_policy(make_trainer, policy, tmp_path):
    policy.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds no saved critic;"):
        make_trainer(critic="shared", critic_model_name_or_path=str(tmp_path))
    saved(tmp_path, SharedCritic(policy))
    with pytest.raises(ModelError, match=r"holds no saved critic \(its folder critic does\)"):
        make_trainer(critic="shared", critic_model_name_or_path=str(tmp_path))


def test_a_backbone_that_knows_fewer_tokens_is_refused(policy):
    critic = Critic.from_policy(policy)
    refuse_other_tokens(critic, policy.config.vocab_size)
    with pytest.raises(ModelError, match="knows 29 tokens, the policy's tokenizer has 30"):
        refuse_other_tokens(critic, 30)


def test_more_tokens_than_learned_positions_are_named(policy):
    critic = Critic(GPT2Model(GPT2Config(vocab_size=29, n_positions=12, n_embd=16, n_layer=1, n_head=2)))
    refuse_other_tokens(critic, 29, response=11)
    with pytest.raises(ModelError, match="has learned 12 positions, and max_completion_length alone is 12"):
        refuse_other_tokens(critic, 29, response=12)
    assert critic(IDS.repeat(1, 3), MASK.repeat(1, 3)).shape == (1, 12)
    with pytest.raises(ModelError, match="have 16 tokens, and the critic's backbone has learned 12 positions"):
        critic(IDS.repeat(1, 4), MASK.repeat(1, 4))
    assert Critic.from_policy(policy).positions is None  # rotary


def test_a_module_and_a_choice_cannot_both_be_given(policy, tokenizer, prompts, tmp_path):
    from rltoolkit.rlsp import RLSPConfig, RLSPTrainer

    args = RLSPConfig(str(tmp_path), critic="shared", use_cpu=True, bf16=False, report_to=[], steps_per_generation=2)
    with pytest.raises(ModelError, match=r"given as a module \(Critic\), and the config asks for 'shared'"):
        RLSPTrainer(
            policy, lambda completions, **_: [0.0] * len(completions), None, args, prompts,
            processing_class=tokenizer, critic=Critic.from_policy(policy),
        )  # fmt: skip
