import json
import math

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from rltoolkit.errors import RolloutError
from rltoolkit.rollout import adapters
from rltoolkit.rollout.weights import (
    FolderKind,
    adapter_of,
    folder_kind,
    is_tied,
    load_policy,
    memory_state,
    policy_config,
    policy_state,
    refuse_partial,
    write_adapter,
    write_policy,
)

IDS = torch.tensor([[3, 4, 5, 6, 7, 8]])


def _lora(model, **options):
    torch.manual_seed(1)
    chosen = {"r": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False} | options
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **chosen)).to(next(model.parameters()).dtype)


def _logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def _snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_written_policy_loads_with_the_same_bits(tiny_model, tmp_path, tied, dtype):
    model = tiny_model(dtype=dtype, tie_word_embeddings=tied)
    state = policy_state(model)
    assert ("lm_head.weight" in state) is not tied
    assert is_tied(policy_config(model)) is tied
    write_policy(model, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert loaded.dtype == dtype
    assert _equal(loaded.state_dict(), model.state_dict())
    assert loaded.config.architectures == ["LlamaForCausalLM"]
    assert folder_kind(tmp_path / "policy") is FolderKind.MODEL


def test_a_policy_is_written_in_another_dtype_and_in_pieces(tiny_model, tmp_path, monkeypatch):
    import huggingface_hub

    whole = huggingface_hub.save_torch_state_dict
    monkeypatch.setattr(
        huggingface_hub, "save_torch_state_dict", lambda *args, **kw: whole(*args, **kw, max_shard_size=20_000)
    )
    model = tiny_model(dtype=torch.float32)
    write_policy(model, tmp_path / "policy", dtype=torch.bfloat16)
    assert len(list((tmp_path / "policy").glob("model-*.safetensors"))) > 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert loaded.dtype == torch.bfloat16
    assert _equal(loaded.state_dict(), model.to(torch.bfloat16).state_dict())


def test_a_folder_is_replaced_as_a_whole_and_kept_when_writing_fails(tiny_model, tmp_path):
    folder = tmp_path / "policy"
    write_policy(tiny_model(seed=0), folder)
    (folder / "left-over").touch()
    write_policy(tiny_model(seed=1), folder)
    assert not (folder / "left-over").exists()
    before = _snapshot(load_policy(folder))
    broken = tiny_model(seed=2)
    broken.config.note = object()  # cannot be written as JSON
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_policy(broken, folder)
    assert _equal(before, load_policy(folder).state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "lora_alpha": 3},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 9}},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "v_proj"]},
    ],
    ids=str,
)
def test_an_adapter_is_merged_into_copies_and_the_module_is_unchanged(tiny_model, options):
    model = _lora(tiny_model(), **options)
    if "modules_to_save" in options:
        with torch.no_grad():
            model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(1.5)
    before, logits, plain_logits = _snapshot(model), _logits(model), _logits(tiny_model())
    merged, without = tiny_model(seed=9), tiny_model(seed=9)
    merged.load_state_dict(policy_state(model))
    without.load_state_dict(policy_state(model, with_adapter=False))
    torch.testing.assert_close(_logits(merged), logits, rtol=1e-12, atol=1e-12)
    assert torch.equal(_logits(without), plain_logits)
    assert not torch.allclose(logits, plain_logits, atol=1e-2)
    assert _equal(before, model.state_dict())
    assert torch.equal(_logits(model), logits)


def test_an_adapter_merged_by_its_owner_is_taken_as_it_is_and_can_be_left_out(tiny_model):
    model = _lora(tiny_model())
    expected = policy_state(model)
    model.merge_adapter()
    assert _equal(policy_state(model), expected)
    plain = tiny_model().state_dict()
    for name, tensor in policy_state(model, with_adapter=False).items():
        torch.testing.assert_close(tensor, plain[name], rtol=0, atol=1e-14)
    assert model.base_model.model.model.layers[0].self_attn.q_proj.merged


def test_what_the_architecture_does_not_have_is_left_out(tiny_model):
    plain = tiny_model()
    expected = _snapshot(plain)
    plain.critic = nn.Linear(4, 1)
    assert _equal(policy_state(plain), expected)
    assert policy_state(_lora(plain)).keys() == expected.keys()


def test_names_are_those_of_checkpoints_where_memory_differs(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 32}
    config = MixtralConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, num_local_experts=2)
    model = MixtralForCausalLM(config)
    model.save_pretrained(tmp_path / "theirs")
    write_policy(model, tmp_path / "ours")
    theirs, ours = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("theirs", "ours"))
    header = [json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]) for data in (theirs, ours)]
    assert header[0].keys() == header[1].keys()
    assert header[0].keys() - {"__metadata__"} != model.state_dict().keys()
    assert _equal(load_policy(tmp_path / "ours").state_dict(), model.state_dict())


def test_weights_under_wrappers_have_their_own_names(tiny_model):
    model = tiny_model()
    expected = _snapshot(model)
    assert _equal(policy_state(torch.compile(model)), expected)
    model.model.layers[0] = torch.compile(model.model.layers[0])
    assert _equal(policy_state(model), expected)


def test_weights_that_are_not_numbers_are_refused(tiny_model, tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = math.nan
    with pytest.raises(RolloutError, match=r"1 weights of LlamaForCausalLM .* instance model.layers.1.mlp.up_proj"):
        write_policy(model, tmp_path / "policy")
    assert list(tmp_path.iterdir()) == []
    adapted = _lora(tiny_model())
    with torch.no_grad():
        adapted.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"].weight[0, 0] = math.inf
    with pytest.raises(RolloutError, match="not finite numbers"):
        policy_state(adapted)
    policy_state(adapted, with_adapter=False)


def test_a_module_that_is_not_what_its_config_says_is_refused(tiny_model):
    lacking = tiny_model()
    del lacking.lm_head
    with pytest.raises(RolloutError, match=r"lm_head.weight of LlamaForCausalLM is missing.*\(32, 32\)"):
        policy_state(lacking)
    grown = tiny_model()
    grown.config.vocab_size = 40
    with pytest.raises(RolloutError, match=r"of shape \(32, 32\), its config says \(40, 32\)"):
        policy_state(grown)
    with pytest.raises(RolloutError, match="Linear has no config"):
        policy_state(nn.Linear(2, 2))


def test_quantised_weights_are_refused(tiny_model):
    """float8 counts as floating point; without its scale it is another weight."""
    model = tiny_model(dtype=torch.float32)
    layer = model.model.layers[0].self_attn.q_proj
    layer.weight = nn.Parameter(layer.weight.data.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(RolloutError, match=r"q_proj.weight .* is quantised \(torch.float8_e4m3fn\)"):
        policy_state(model)
    model = tiny_model()
    model.config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(RolloutError, match="its config has quantization_config"):
        policy_state(model)


def test_a_generation_config_that_cannot_be_saved_is_left_out(tiny_model, tmp_path, caplog):
    model = tiny_model()
    write_policy(model, tmp_path / "valid")
    assert (tmp_path / "valid" / "generation_config.json").is_file()
    model.generation_config.do_sample = False
    model.generation_config.temperature = 0.7
    write_policy(model, tmp_path / "policy")
    assert _equal(load_policy(tmp_path / "policy").state_dict(), model.state_dict())
    assert "generation_config.json is left out" in caplog.text


def test_tied_weights_that_differ_are_refused(tiny_model):
    model = _lora(tiny_model(tie_word_embeddings=True), modules_to_save=["lm_head"])
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(2)
    with pytest.raises(RolloutError, match=r"lm_head\.weight .* is tied to model.embed_tokens.weight .* differ"):
        policy_state(model)


def test_an_adapter_that_adds_tokens_is_refused(tiny_model):
    model = get_peft_model(tiny_model(), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(RolloutError, match="adds tokens and changes no weights"):
        policy_state(model)


def test_an_adapter_on_embeddings_is_merged_and_leaves_the_base_alone(tiny_model, tmp_path):
    model = _lora(tiny_model(), target_modules=["embed_tokens", "lm_head"])
    write_adapter(model, tmp_path / "adapter")
    base = tiny_model(seed=3)
    before = _snapshot(base)
    changed = adapters.adapted_weights(_architecture(base), memory_state(base), tmp_path / "adapter")
    assert _equal(before, base.state_dict())
    expected = policy_state(model)  # PEFT saves the base of embeddings with the adapter
    assert set(changed) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in changed.items())


@pytest.mark.parametrize(
    ("options", "unmerged", "reason"),
    [
        ({"r": 3, "use_rslora": True, "lora_alpha": 5, "lora_dropout": 0.1}, True, ""),
        ({"init_lora_weights": "orthogonal"}, True, ""),
        ({"exclude_modules": ["layers.0.self_attn.q_proj"], "layers_to_transform": [0]}, True, ""),
        ({"use_dora": True}, False, "it has use_dora"),
        ({"modules_to_save": ["lm_head"]}, False, "it has modules_to_save"),
        ({"bias": "all"}, False, "it has bias"),
        ({"rank_pattern": {"q_proj": 2}}, False, "it has rank_pattern"),
        ({"target_modules": ["embed_tokens"]}, False, "it has embeddings"),
        ({"use_qalora": True, "qalora_group_size": 8}, False, "it has qalora_group_size, use_qalora"),
    ],
    ids=str,
)
def test_what_vllm_can_load_without_merging(tiny_model, tmp_path, options, unmerged, reason):
    model = _lora(tiny_model(dtype=torch.float32), **options)
    facts = adapter_of(model)
    assert facts.rank == options.get("r", 4)
    assert facts.unmerged is unmerged
    assert facts.reason == reason
    write_adapter(model, tmp_path / "adapter")
    assert folder_kind(tmp_path / "adapter") is FolderKind.ADAPTER
    assert adapter_of(tmp_path / "adapter") == facts


def test_a_field_that_is_not_known_to_be_plain_is_merged(tiny_model, tmp_path):
    write_adapter(_lora(tiny_model()), tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"invented_next_year": True}))
    assert adapter_of(tmp_path / "adapter").reason == "it has invented_next_year"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"alora_invocation_tokens": [3, 4]}, "alora_invocation_tokens"),
        ({"layer_replication": [(0, 2), (1, 2)]}, "layer_replication"),
    ],
)
def test_adapters_that_are_no_change_of_weights_are_refused(tiny_model, options, field):
    model = _lora(tiny_model(), **options)
    for take in (adapter_of, policy_state):
        with pytest.raises(RolloutError, match=f"has {field}, which no change of the model's own weights"):
            take(model)


def test_what_peft_cannot_merge_is_refused(tiny_model, monkeypatch):
    model = _lora(tiny_model())

    def refuse(*args, **kwargs):
        raise NotImplementedError("not this variant")

    monkeypatch.setattr("peft.tuners.lora.layer.Linear.merge", refuse)
    with pytest.raises(RolloutError, match=r"cannot merge the adapter of model\..*q_proj: not this variant"):
        policy_state(model)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_an_adapter_that_changed_its_base_is_taken_from_memory_alone(tiny_model, tmp_path, start):
    """Its tensors belong to a base that is in no folder: on the original one they are another policy."""
    model = _lora(tiny_model(dtype=torch.float32), init_lora_weights=start)
    assert adapter_of(model).unmerged  # beside the base that the module has
    write_adapter(model, tmp_path / "adapter")
    base = tiny_model(dtype=torch.float32)
    takes = [
        lambda: adapter_of(tmp_path / "adapter"),
        lambda: adapters.adapted_weights(_architecture(base), memory_state(base), tmp_path / "adapter"),
        lambda: adapters.fill_adapter(_lora(base), tmp_path / "adapter"),
    ]
    for take in takes:
        with pytest.raises(RolloutError, match=f"init_lora_weights '{start}', which also changes the base"):
            take()
    write_adapter(_lora(tiny_model(dtype=torch.float32)), tmp_path / "plain")
    with pytest.raises(RolloutError, match="adapter of the model that samples was started with init_lora_weights"):
        adapters.fill_adapter(model, tmp_path / "plain")


@pytest.mark.parametrize("start", [True, "gaussian", "orthogonal"])
def test_an_adapter_that_kept_its_base_is_merged_into_it(tiny_model, tmp_path, start):
    model = _lora(tiny_model(dtype=torch.float32), init_lora_weights=start)
    with torch.no_grad():
        model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight.add_(0.1)
    write_adapter(model, tmp_path / "adapter")
    base = tiny_model(dtype=torch.float32)
    changed = adapters.adapted_weights(_architecture(base), memory_state(base), tmp_path / "adapter")
    expected = policy_state(model)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in changed.items())


def test_a_disabled_adapter_is_not_in_use(tiny_model, tmp_path):
    model, plain = _lora(tiny_model()), tiny_model().state_dict()
    with model.disable_adapter():
        assert adapter_of(model) is None
        assert _equal(policy_state(model), plain)
        with pytest.raises(RolloutError, match="has no adapter in use"):
            write_adapter(model, tmp_path / "adapter")
    assert adapter_of(model).unmerged


def _in_ddp(module):
    """Wrap a module as DDP does, without its processes."""
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = module
    return wrapped


@pytest.mark.parametrize("wrap", [_in_ddp, torch.compile, lambda module: _in_ddp(torch.compile(module))])
def test_an_adapter_is_seen_through_wrappers(tiny_model, tmp_path, wrap):
    model = _lora(tiny_model())
    assert adapter_of(wrap(model)) == adapter_of(model)
    assert _equal(policy_state(wrap(model)), policy_state(model))
    write_adapter(wrap(model), tmp_path / "adapter")
    assert adapter_of(tmp_path / "adapter") == adapter_of(model)
    tokens = get_peft_model(tiny_model(), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(RolloutError, match="adds tokens and changes no weights"):
        policy_state(wrap(tokens))


def test_an_adapter_of_compiled_layers_is_written_under_plain_names(tiny_model, tmp_path):
    model = _lora(tiny_model())
    write_adapter(model, tmp_path / "plain")
    layers = model.base_model.model.model.layers
    layers[1] = torch.compile(layers[1])
    write_adapter(model, tmp_path / "compiled")
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "compiled"))
    assert _equal(one, other)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_" in name:
                tensor.zero_()
    adapters.fill_adapter(model, tmp_path / "plain")
    write_adapter(model, tmp_path / "again")
    assert _equal(load_file(tmp_path / "again" / "adapter_model.safetensors"), one)


def test_an_adapter_to_be_loaded_unmerged_has_a_layer_for_each_of_its_weights(tiny_model, tmp_path):
    architecture = _architecture(tiny_model())
    write_adapter(_lora(tiny_model()), tmp_path / "good")
    adapters.check_adapter(tmp_path / "good", architecture)
    write_adapter(_lora(tiny_model(num_hidden_layers=3)), tmp_path / "deep")
    write_adapter(_lora(tiny_model(intermediate_size=32)), tmp_path / "narrow")
    broken = _lora(tiny_model())
    broken.base_model.model.model.layers[1].mlp.down_proj.lora_B["default"].weight.data[0, 0] = math.nan
    write_adapter(broken, tmp_path / "broken")
    for name, message in [
        ("deep", r"layers\.2\..* has no layer there to stand on"),
        ("narrow", r"down_proj\.lora_A\.weight of shape \(4, 32\) has no layer there"),
        ("broken", "not finite"),
    ]:
        with pytest.raises(RolloutError, match=message):
            adapters.check_adapter(tmp_path / name, architecture)


def test_no_adapter(tiny_model, tmp_path):
    assert adapter_of(tiny_model()) is None
    assert adapter_of(tmp_path) is None
    with pytest.raises(RolloutError, match="has no adapter"):
        write_adapter(tiny_model(), tmp_path / "adapter")


def test_an_adapter_under_another_name_is_written_flat(tiny_model, tmp_path):
    model = _lora(tiny_model())
    model.add_adapter("second", LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False))
    model.set_adapter("second")
    model.double()
    assert adapter_of(model).rank == 2
    write_adapter(model, tmp_path / "adapter")
    assert adapter_of(tmp_path / "adapter").rank == 2
    base = tiny_model()
    changed = adapters.adapted_weights(_architecture(base), memory_state(base), tmp_path / "adapter")
    expected = policy_state(model)
    assert set(changed) == {f"model.layers.{i}.self_attn.v_proj.weight" for i in range(2)}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in changed.items())


def _architecture(model):
    with torch.device("meta"):
        return type(model)(model.config)


def test_folders_that_hold_no_policy_are_refused(tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    tiny_model().config.save_pretrained(tmp_path / "bare")
    write_policy(tiny_model(), tmp_path / "hollow")
    (tmp_path / "hollow" / "model.safetensors").write_bytes(b"")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    cases = [
        ("nowhere", "there is no such folder"),
        ("empty", "neither config.json nor adapter_config.json"),
        ("bare", "folder of kind model, but without weights"),
        ("hollow", "folder of kind model, but without weights"),
        ("adapter", "folder of kind adapter, but without weights"),
    ]
    for name, message in cases:
        with pytest.raises(RolloutError, match=f"{name}: .*{message}"):
            folder_kind(tmp_path / name)


def test_checkpoints_that_are_not_whole_are_refused(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    write_policy(tiny_model(), tmp_path / "partial")
    file = tmp_path / "partial" / "model.safetensors"
    state = load_file(file)
    lost = {name: tensor for name, tensor in state.items() if "layers.1.mlp.up_proj" not in name}
    save_file(lost, file, metadata={"format": "pt"})
    with pytest.raises(RolloutError, match=r"lacks 1 weights, for instance model.layers.1.mlp.up_proj.weight"):
        load_policy(tmp_path / "partial")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RolloutError, match=r"cannot take weights from .*partial"):
        load_policy(tmp_path / "partial")
    (tmp_path / "partial" / "config.json").write_text("{")
    with pytest.raises(RolloutError, match=r"cannot take weights from .*partial"):
        load_policy(tmp_path / "partial")


def test_a_place_without_room_is_named_with_the_size(tiny_model, tmp_path, monkeypatch):
    def no_room(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.save_torch_state_dict", no_room)
    with pytest.raises(RolloutError, match=r"written to .*policy: .*No space left on device; it takes 0\.00 GiB"):
        write_policy(tiny_model(), tmp_path / "policy")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_whole_by_its_own_config(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    for place, shape in (("tied", {"tie_word_embeddings": True}), ("untied", {})):
        write_policy(tiny_model(**shape), tmp_path / place)
        refuse_partial(tmp_path / place)
    file = tmp_path / "untied" / "model.safetensors"
    state = load_file(file)
    save_file(state | {"lm_head.weight": state["lm_head.weight"][:30].clone()}, file, metadata={"format": "pt"})
    with pytest.raises(
        RolloutError, match=r"lacks 1 of 21 weights.*lm_head.weight: found \(30, 32\), expected \(32, 32"
    ):
        refuse_partial(tmp_path / "untied")
    file.unlink()
    with pytest.raises(RolloutError, match=r"found no model\.safetensors"):
        refuse_partial(tmp_path / "untied")
