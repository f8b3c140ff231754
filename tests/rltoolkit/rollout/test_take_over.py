import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.rollout.weights import policy_state, write_adapter, write_policy
from rltoolkit.types import SamplingParams

EOS = 2
PARAMS = SamplingParams(max_new_tokens=40)


def _backend(model):
    return TransformersBackend(model, eos_token_ids=[EOS], pad_token_id=0)


def _tokens(answers):
    return [[sample.token_ids for sample in samples] for samples in answers]


def _adapted(base, seed, **options):
    torch.manual_seed(seed)
    chosen = {"r": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False} | options
    return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **chosen)).to(next(base.parameters()).dtype)


def test_sync_merges_a_peft_model_into_a_plain_one(tiny_model, prompts):
    trained = _adapted(tiny_model(seed=1), 1)
    trained.base_model.model.critic = torch.nn.Linear(3, 1)  # as RLSP attaches it
    wanted = _tokens(_backend(trained).generate(prompts, 2, PARAMS, range(24)))
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    backend = _backend(tiny_model(seed=0))
    backend.sync(trained, 1)
    assert _tokens(backend.generate(prompts, 2, PARAMS, range(24))) == wanted
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.state_dict().items())


def test_in_float32_a_merged_adapter_flips_at_most_a_rare_sample(tiny_model, prompts):
    trained = _adapted(tiny_model(seed=1, dtype=torch.float32), 1)
    backend = _backend(tiny_model(dtype=torch.float32))
    backend.sync(trained, 1)
    pairs = [
        pair
        for one, other in zip(
            _tokens(_backend(trained).generate(prompts, 20, PARAMS, range(24))),
            _tokens(backend.generate(prompts, 20, PARAMS, range(24))),
            strict=True,
        )
        for pair in zip(one, other, strict=True)
    ]
    assert len(pairs) == 480
    assert sum(a == b for a, b in pairs) >= 0.99 * 480


def test_an_adapter_folder_stands_on_the_base_and_the_next_one_replaces_it_without_drift(tiny_model, prompts, tmp_path):
    wanted = []
    for seed, targets in ((1, ["q_proj", "down_proj"]), (2, ["q_proj", "v_proj"])):
        trained = _adapted(tiny_model(dtype=torch.float32), seed, target_modules=targets)
        write_adapter(trained, tmp_path / str(seed))
        wanted.append({name: tensor.clone() for name, tensor in policy_state(trained).items()})
    backend = _backend(tiny_model(dtype=torch.float32))
    for version, seed in enumerate((1, 2, 1, 1, 2)):
        backend.sync(tmp_path / str(seed), version)
        state = backend.model.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in wanted[seed - 1].items())
        assert backend.generate([[3]], 1, PARAMS, [0])[0][0].version == version


def test_an_adapter_folder_after_a_peft_model_stands_on_its_base(tiny_model, tmp_path):
    trained = _adapted(tiny_model(seed=5), 1)
    first = {name: tensor.clone() for name, tensor in policy_state(trained).items()}
    write_adapter(trained, tmp_path / "first")
    with torch.no_grad():
        for name, tensor in trained.named_parameters():
            if "lora_" in name:
                tensor.mul_(2)
    backend = _backend(tiny_model(seed=0))
    backend.sync(trained, 1)
    backend.sync(tmp_path / "first", 2)
    state = backend.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in first.items())


def test_after_training_the_sampled_module_an_adapter_stands_on_what_it_is_now(tiny_model, tmp_path):
    trained, plain = _adapted(tiny_model(), 1), tiny_model().state_dict()
    write_adapter(trained, tmp_path / "adapter")
    backend = _backend(tiny_model())
    backend.sync(tmp_path / "adapter", 1)
    with torch.no_grad():
        for tensor in backend.model.parameters():
            tensor.mul_(0.5)
    now = {name: tensor.clone() for name, tensor in backend.model.state_dict().items()}
    backend.sync(backend.model, 2)
    backend.sync(tmp_path / "adapter", 3)
    state = backend.model.state_dict()
    for name, tensor in policy_state(trained).items():
        torch.testing.assert_close(state[name], now[name] + tensor - plain[name], rtol=0, atol=1e-14)


def test_a_peft_model_takes_over_peft_models_and_adapter_folders_of_its_shape(tiny_model, prompts, tmp_path):
    trained = _adapted(tiny_model(), 1)
    write_adapter(trained, tmp_path / "adapter")
    wanted = _tokens(_backend(trained).generate(prompts, 1, PARAMS, range(24)))
    for source in (trained, tmp_path / "adapter"):
        backend = _backend(_adapted(tiny_model(), 2))
        assert _tokens(backend.generate(prompts, 1, PARAMS, range(24))) != wanted
        backend.sync(source, 1)
        assert _tokens(backend.generate(prompts, 1, PARAMS, range(24))) == wanted


def test_adapters_that_do_not_fit_are_refused_and_change_nothing(tiny_model, tmp_path):
    for name, options in {
        "rank": {"r": 2},
        "scaling": {"lora_alpha": 99},
        "targets": {"target_modules": ["v_proj"]},
    }.items():
        write_adapter(_adapted(tiny_model(), 1, **options), tmp_path / name)
    write_adapter(_adapted(tiny_model(hidden_size=16), 1), tmp_path / "width")
    write_adapter(_adapted(tiny_model(num_hidden_layers=3), 1), tmp_path / "depth")
    broken = _adapted(tiny_model(), 1)
    broken.base_model.model.model.layers[1].mlp.down_proj.lora_B["default"].weight.data[0, 0] = math.nan
    write_adapter(broken, tmp_path / "broken")
    write_adapter(_adapted(tiny_model(), 1), tmp_path / "cut")
    cut = tmp_path / "cut" / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-50])
    plain, adapted = tiny_model(), _adapted(tiny_model(), 2)
    tied = tiny_model(tie_word_embeddings=True)
    write_adapter(_adapted(tiny_model(), 1, target_modules=["lm_head"]), tmp_path / "head")
    cases = [
        (adapted, tmp_path / "rank", "do not fit the model"),
        (adapted, tmp_path / "scaling", "lora_alpha 99, that of the model 8"),
        (adapted, tmp_path / "targets", "do not fit the model"),
        (adapted, tmp_path / "broken", "not finite"),
        (adapted, tiny_model(), "is a plain model, the model that samples has an adapter"),
        (adapted, _adapted(tiny_model(), 1, lora_alpha=99), "its scaling is .*expected"),
        (adapted, _adapted(tiny_model(), 1, r=2, lora_alpha=4), "do not fit the model"),
        (plain, tmp_path / "width", "do not fit the model"),
        (plain, tmp_path / "depth", "do not fit the model"),
        (plain, tmp_path / "broken", "not finite"),
        (plain, tmp_path / "cut", "no weights that can be read"),
        (plain, _adapted(tiny_model(hidden_size=16), 1), "another model than the one that samples: head_dim is 4"),
        (tied, tmp_path / "head", "one and the same weight"),
    ]
    for model, source, message in cases:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        backend = _backend(model)
        with pytest.raises(RolloutError, match=message):
            backend.sync(source, 1)
        assert backend.version == 0
        changed = [name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)]
        assert changed == [], message


def test_weights_that_are_not_numbers_are_refused_and_change_nothing(tiny_model, tmp_path):
    broken = tiny_model(seed=1)
    broken.model.norm.weight.data[0] = math.nan
    broken.save_pretrained(tmp_path)
    backend = _backend(tiny_model())
    before = {name: tensor.clone() for name, tensor in backend.model.state_dict().items()}
    for source in (broken, tmp_path):
        with pytest.raises(RolloutError, match=r"model\.norm\.weight; the training has diverged"):
            backend.sync(source, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in backend.model.state_dict().items())


def test_a_peft_model_takes_over_only_adapters_that_are_used_alike(tiny_model, tmp_path):
    """Merged, disabled or second adapters change what the module computes, and no tensor of it says so."""
    source = _adapted(tiny_model(), 1)
    write_adapter(source, tmp_path / "adapter")
    target = _adapted(tiny_model(), 2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    source.merge_adapter()
    with pytest.raises(RolloutError, match=r"its merged_adapters is \['default'\] in .*q_proj, expected \[\]"):
        _backend(target).sync(source, 1)
    source.unmerge_adapter()
    with source.disable_adapter(), pytest.raises(RolloutError, match="its disable_adapters is True"):
        _backend(target).sync(source, 1)
    source.add_adapter("b", LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    source.set_adapter("b")
    with pytest.raises(RolloutError, match=r"its active_adapters is \['b'\]"):
        _backend(target).sync(source, 1)
    target.merge_adapter()
    with pytest.raises(RolloutError, match=r"adapter of the model that samples is merged in .*unmerge_adapter"):
        _backend(target).sync(tmp_path / "adapter", 1)
    target.unmerge_adapter()
    with target.disable_adapter(), pytest.raises(RolloutError, match="the model that samples is disabled"):
        _backend(target).sync(tmp_path / "adapter", 1)
    for name, tensor in target.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-14)


def test_compiled_layers_on_one_side_do_not_matter(tiny_model, tmp_path):
    source, target = _adapted(tiny_model(), 1), _adapted(tiny_model(), 2)
    expected = policy_state(source)
    write_adapter(source, tmp_path / "adapter")
    for module in (source, target):
        layers = module.base_model.model.model.layers
        layers[module is target] = torch.compile(layers[module is target])
    for taken in (source, tmp_path / "adapter"):
        with torch.no_grad():
            for name, tensor in target.named_parameters():
                if "lora_" in name:
                    tensor.zero_()
        _backend(target).sync(taken, 1)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in policy_state(target).items())


def test_a_config_that_computes_otherwise_is_refused_whatever_the_shapes(tiny_model, tmp_path):
    """Not a shape differs with the period of the positions, nor with the norm's epsilon."""
    rope = tiny_model(rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    norm = tiny_model(rms_norm_eps=1e-2)
    silent = tiny_model(seed=1, attention_dropout=0.5, use_cache=False, eos_token_id=5, initializer_range=0.1)
    adapted = _adapted(tiny_model(rms_norm_eps=1e-2), 1)
    for model, name in ((rope, "rope_parameters"), (norm, "rms_norm_eps")):
        write_policy(model, tmp_path / name)
        for source in (model, tmp_path / name):
            with pytest.raises(RolloutError, match=f"another model than the one that samples: {name} is"):
                _backend(tiny_model()).sync(source, 1)
    with pytest.raises(
        RolloutError, match=r"LlamaForCausalLM is another model .*: rms_norm_eps is 0.01, expected 1e-06"
    ):
        _backend(_adapted(tiny_model(), 2)).sync(adapted, 1)
    backend = _backend(tiny_model())
    backend.sync(silent, 1)
    assert torch.equal(backend.model.lm_head.weight, silent.lm_head.weight)
