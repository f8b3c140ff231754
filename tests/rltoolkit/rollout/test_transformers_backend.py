import copy
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.base import RolloutBackend
from rltoolkit.rollout.sampling import filter_logits
from rltoolkit.rollout.transformers_backend import TransformersBackend, end_token_ids
from rltoolkit.types import SamplingParams, StopReason

EOS = 2
PARAMS = SamplingParams(max_new_tokens=40)


def _backend(model, **options):
    backend: RolloutBackend = TransformersBackend(model, eos_token_ids=[EOS], pad_token_id=0, **options)
    return backend


def _tokens(answers):
    return [[sample.token_ids for sample in samples] for samples in answers]


def _scored(model, prompt, sample, params):
    """Return the log-probs of a sample by one plain forward pass without cache, batch or padding."""
    ids = torch.tensor([[*prompt, *sample.token_ids]])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logprobs = filter_logits(logits, params).log_softmax(-1)
    return logprobs.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]


def test_a_sample_does_not_depend_on_its_batch(tiny_model, prompts):
    backend = _backend(tiny_model())
    together = _tokens(backend.generate(prompts, 3, PARAMS, range(24)))
    lengths = {len(ids) for samples in together for ids in samples}
    assert len(lengths) > 10  # rows did leave the batch at many different steps
    alone = [_tokens(backend.generate([p], 3, PARAMS, [i]))[0] for i, p in enumerate(prompts)]
    assert alone == together
    assert _tokens(_backend(backend.model, batch_tokens=150).generate(prompts, 3, PARAMS, range(24))) == together
    assert [samples[:1] for samples in together] == _tokens(backend.generate(prompts, 1, PARAMS, range(24)))


def test_in_float32_rounding_flips_at_most_a_rare_sample(tiny_model, prompts):
    backend = _backend(tiny_model(dtype=torch.float32))
    together = _tokens(backend.generate(prompts, 20, PARAMS, range(24)))
    alone = [_tokens(backend.generate([p], 20, PARAMS, [i]))[0] for i, p in enumerate(prompts)]
    pairs = [pair for one, other in zip(together, alone, strict=True) for pair in zip(one, other, strict=True)]
    assert len(pairs) == 480
    assert sum(a == b for a, b in pairs) >= 0.99 * 480


@pytest.mark.parametrize(
    "params",
    [
        PARAMS,
        SamplingParams(temperature=0.6, max_new_tokens=30),
        SamplingParams(top_p=0.8, top_k=9, min_p=0.05),
    ],
)
def test_logprobs_are_those_of_the_sampling_distribution(tiny_model, prompts, params):
    model = tiny_model(max_position_embeddings=512)
    for prompt, samples in zip(prompts, _backend(model).generate(prompts, 2, params, range(24)), strict=True):
        for sample in samples:
            expected = _scored(model, prompt, sample, params)
            # handed over in float32
            torch.testing.assert_close(torch.tensor(sample.logprobs).double(), expected, rtol=1e-6, atol=1e-6)


def test_seeds_decide_the_samples(tiny_model, prompts):
    backend = _backend(tiny_model())
    first = _tokens(backend.generate(prompts, 4, PARAMS, range(24)))
    assert first == _tokens(backend.generate(prompts, 4, PARAMS, range(24)))
    other = _tokens(backend.generate(prompts, 4, PARAMS, range(100, 124)))
    assert sum(a == b for a, b in zip(first, other, strict=True)) == 0
    assert all(len(set(samples)) > 1 for samples in first)
    assert first[4] != first[20]  # equal prompts, different seeds


def test_samples_follow_the_models_distribution(tiny_model):
    """The first token of 4,000 samples against the softmax; the limit is about 3 standard errors."""
    model = tiny_model()
    answers = _backend(model).generate([[5, 6]], 4000, SamplingParams(max_new_tokens=1), [0])[0]
    drawn = torch.tensor([sample.token_ids[0] for sample in answers]).bincount(minlength=32) / 4000
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[5, 6]])).logits[0, -1].softmax(-1)
    assert 0.5 * (drawn - expected).abs().sum() < 0.04


def test_a_stopped_sample_ends_with_eos_and_a_truncated_one_has_none(tiny_model, prompts):
    answers = _backend(tiny_model()).generate(prompts, 4, PARAMS, range(24))
    flat = [sample for samples in answers for sample in samples]
    for sample in flat:
        assert EOS not in sample.token_ids[:-1]
        if sample.stop_reason is StopReason.STOP:
            assert sample.token_ids[-1] == EOS
        else:
            assert len(sample.token_ids) == 40
            assert sample.token_ids[-1] != EOS
    assert {sample.stop_reason for sample in flat} == {StopReason.STOP, StopReason.LENGTH}


def test_eos_as_the_last_allowed_token_is_a_stop(tiny_model, prompts):
    backend = _backend(tiny_model())
    long = backend.generate(prompts, 4, PARAMS, range(24))
    cut = backend.generate(prompts, 4, SamplingParams(max_new_tokens=5), range(24))
    pairs = [(a, b) for one, other in zip(long, cut, strict=True) for a, b in zip(one, other, strict=True)]
    assert any(len(a.token_ids) == 5 for a, _ in pairs)
    for a, b in pairs:
        assert b.token_ids == a.token_ids[:5]
        assert (b.stop_reason is StopReason.STOP) == (len(a.token_ids) <= 5)


@pytest.mark.parametrize("window", [None, 4])
def test_greedy_equals_generate(tiny_model, prompts, window):
    if window is None:
        model = tiny_model().eval()
    else:
        torch.manual_seed(0)
        sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        config = MistralConfig(
            **sizes,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=window,
            initializer_range=0.4,
        )
        model = MistralForCausalLM(config).double().eval()
    answers = _backend(model).generate(prompts, 1, SamplingParams(temperature=0, max_new_tokens=30), range(24))
    for prompt, samples in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=30,
            eos_token_id=EOS,
            pad_token_id=0,
        )
        assert samples[0].token_ids == tuple(output[0, len(prompt) :].tolist())
        assert samples[0].logprobs[0] == pytest.approx(
            _scored(model, prompt, samples[0], SamplingParams())[0].item(), abs=1e-6
        )


def test_a_prompt_is_read_once_and_finished_rows_leave(tiny_model, prompts):
    model = tiny_model()
    shapes = []
    model.register_forward_pre_hook(
        lambda _module, _args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    _backend(model).generate(prompts, 5, PARAMS, range(24))
    assert shapes[0] == (23, 9)  # 24 prompts, two of them equal
    rows = [shape[0] for shape in shapes[1:]]
    assert rows[0] > 100  # 24 x 5, less those that stopped at once
    assert all(before >= after for before, after in pairwise(rows))
    assert rows[-1] < 30


def test_decoding_ends_with_the_last_row(tiny_model):
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[EOS] = 0
    steps = []
    model.register_forward_pre_hook(lambda *_: steps.append(1))
    answers = _backend(model).generate([[3]], 8, SamplingParams(max_new_tokens=120), [0])[0]
    assert len(steps) == max(len(sample.token_ids) for sample in answers) <= 120


def test_the_models_mode_and_gradients_are_given_back(tiny_model, prompts):
    model = tiny_model(attention_dropout=0.5)
    model.train()
    model.model.layers[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    first = _tokens(_backend(model).generate(prompts, 1, PARAMS, range(24)))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert first == _tokens(_backend(model.eval()).generate(prompts, 1, PARAMS, range(24)))  # no dropout
    model(input_ids=torch.tensor([[3, 4]]), labels=torch.tensor([[3, 4]])).loss.backward()
    assert model.lm_head.weight.grad.abs().sum() > 0


def test_the_mode_is_given_back_after_an_error(tiny_model):
    model = tiny_model().train()
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    with pytest.raises(RolloutError, match="NaN"):
        _backend(model).generate([[3]], 1, PARAMS, [0])
    assert model.training
    assert model.lm_head.training


def test_a_lora_model_samples_with_its_adapter(tiny_model, prompts):
    plain = _tokens(_backend(tiny_model()).generate(prompts, 1, PARAMS, range(24)))
    model = get_peft_model(
        tiny_model(), LoraConfig(target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    ).double()
    answers = _backend(model).generate(prompts, 1, PARAMS, range(24))
    assert _tokens(answers) != plain
    expected = _scored(model, prompts[0], answers[0][0], PARAMS)
    torch.testing.assert_close(torch.tensor(answers[0][0].logprobs).double(), expected, rtol=1e-6, atol=1e-6)


def test_sync_of_the_same_module_gives_the_version(tiny_model):
    backend = _backend(tiny_model())
    assert backend.generate([[3]], 1, PARAMS, [0])[0][0].version == 0
    backend.sync(backend.model, 7)
    assert backend.generate([[3]], 1, PARAMS, [0])[0][0].version == 7


def test_sync_takes_the_weights_of_a_module_or_a_folder(tiny_model, prompts, tmp_path):
    trained = tiny_model(seed=1)
    wanted = _tokens(_backend(trained).generate(prompts, 1, PARAMS, range(24)))
    trained.save_pretrained(tmp_path)
    for source in (trained, tmp_path, str(tmp_path)):
        backend = _backend(tiny_model(seed=0))
        assert _tokens(backend.generate(prompts, 1, PARAMS, range(24))) != wanted
        backend.sync(source, 1)
        assert _tokens(backend.generate(prompts, 1, PARAMS, range(24))) == wanted


def test_sync_refuses_what_does_not_fit_and_keeps_the_version(tiny_model, tmp_path):
    backend = _backend(tiny_model())
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    tiny_model(hidden_size=16).save_pretrained(tmp_path / "other")
    tiny_model().config.save_pretrained(tmp_path / "bare")
    cases = [
        (tiny_model(hidden_size=16), "LlamaForCausalLM is another model .*: head_dim is 4, expected 8"),
        (tmp_path / "other", "other is another model than the one that samples"),
        (tmp_path / "bare", "cannot take weights from .*bare"),
        (tmp_path / "nowhere", "there is no such folder"),
        (tmp_path / "adapter", "without weights"),
    ]
    for source, message in cases:
        with pytest.raises(RolloutError, match=message):
            backend.sync(source, 5)
    assert backend.version == 0


def test_a_request_that_does_not_fit_the_model_is_refused(tiny_model):
    backend = _backend(tiny_model())
    with pytest.raises(RolloutError, match="prompt 1 has no tokens"):
        backend.generate([[3], []], 1, PARAMS, [0, 1])
    with pytest.raises(RolloutError, match="the model knows 0 to 31"):
        backend.generate([[32]], 1, PARAMS, [0])
    with pytest.raises(RolloutError, match="context of 128"):
        backend.generate([[3] * 100], 1, PARAMS, [0])
    assert backend.generate([], 1, PARAMS, []) == []


def test_options_that_cannot_work_are_refused(tiny_model):
    with pytest.raises(RolloutError, match="eos_token_ids is empty"):
        TransformersBackend(tiny_model(), eos_token_ids=[])
    with pytest.raises(RolloutError, match="batch_tokens is 0"):
        _backend(tiny_model(), batch_tokens=0)


def test_a_sleeping_or_closed_backend_refuses(tiny_model):
    with _backend(tiny_model()) as backend:
        backend.sleep()
        with pytest.raises(RolloutError, match=r"asleep; call wake\(\)"):
            backend.generate([[3]], 1, PARAMS, [0])
        backend.wake()
        assert backend.generate([[3]], 1, PARAMS, [0])
    backend.close()
    backend.wake()
    with pytest.raises(RolloutError, match="closed"):
        backend.generate([[3]], 1, PARAMS, [0])


def test_end_tokens_come_from_the_tokenizer_and_the_generation_config(tiny_model):
    model = copy.deepcopy(tiny_model())
    model.generation_config.eos_token_id = [7, EOS]
    assert end_token_ids(model, SimpleNamespace(eos_token_id=EOS)) == (2, 7)
    model.generation_config.eos_token_id = None
    assert end_token_ids(model, SimpleNamespace(eos_token_id=5)) == (5,)
    with pytest.raises(RolloutError, match="names an end-of-sequence token"):
        end_token_ids(model, SimpleNamespace(eos_token_id=None))


def test_no_two_samples_of_a_prompt_coincide(tiny_model):
    """At 5 bits a token and 40 tokens without an end, equal samples would mean equal streams."""
    model = tiny_model()
    backend = TransformersBackend(model, eos_token_ids=[31])
    model.lm_head.weight.data.zero_()  # uniform
    model.lm_head.weight.data[31] = 0
    samples = backend.generate([[5, 6], [5, 6]], 200, SamplingParams(max_new_tokens=40), [1, 2])
    whole = [s.token_ids for answers in samples for s in answers if len(s.token_ids) > 8]
    assert len(whole) > 200
    assert len(set(whole)) == len(whole)


def test_n_of_zero_is_refused(tiny_model):
    with pytest.raises(RolloutError, match="n is 0; ask for at least 1"):
        _backend(tiny_model()).generate([[3]], 0, PARAMS, [0])
