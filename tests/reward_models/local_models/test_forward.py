"""A row has one result, whatever stands beside it in the batch."""

from typing import Any

import pytest
import torch
from tiny_models import tiny_causal_lm, tiny_tokenizer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from reward_models.errors import VerifierError
from reward_models.local_models.encoding import TextEncoder
from reward_models.local_models.forward import TokenBatch, last_logits, row_results, token_batch
from reward_models.local_models.labels import LabelReader, label_ids

ROWS = [(5, 9, 7), (8,), (5, 9, 7), (30, 31, 32, 33, 34, 35, 36)]


def test_padding_is_on_the_right() -> None:
    batch = token_batch([(5, 6), (7,)], pad_id=9)
    assert batch.ids.tolist() == [[5, 6], [7, 9]]
    assert batch.mask.tolist() == [[1, 1], [1, 0]]
    assert batch.last.tolist() == [1, 0]


def test_each_different_row_is_computed_once_and_the_order_kept() -> None:
    seen: list[list[int]] = []

    def sums(batch: TokenBatch) -> Tensor:
        seen.extend(batch.ids.tolist())
        return (batch.ids * batch.mask).sum(1)

    results = row_results(ROWS, sums, model=torch.nn.Linear(1, 1), pad_id=0, batch_size=2)
    assert results == [21.0, 8.0, 21.0, 231.0]
    assert len(seen) == 3
    assert row_results([], sums, model=torch.nn.Linear(1, 1), pad_id=0, batch_size=2) == []


def test_the_model_is_used_without_dropout_or_gradients_and_given_back_as_it_was() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(1, 1))
    model[1].eval()  # a frozen part of a model in training stays as it is
    states: list[tuple[bool, bool]] = []

    def compute(batch: TokenBatch) -> Tensor:
        states.append((model[0].training, torch.is_grad_enabled()))
        return batch.last

    row_results([(1,)], compute, model=model, pad_id=0, batch_size=1)
    assert states == [(False, False)]
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


def test_modes_are_restored_after_a_failure() -> None:
    model = torch.nn.Linear(1, 1)

    def fail(batch: TokenBatch) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        row_results([(1,)], fail, model=model, pad_id=0, batch_size=1)
    assert model.training


class _NoChoice(torch.nn.Module):
    """A model that always makes all logits."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> object:
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)


@pytest.mark.parametrize("kind", ["rotary", "absolute positions", "all logits"])
def test_last_logits_are_those_of_the_row_alone(kind: str) -> None:
    llama = tiny_causal_lm()
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    model = {"rotary": llama, "absolute positions": gpt2, "all logits": _NoChoice(llama)}[kind].eval()
    inner = model.inner if isinstance(model, _NoChoice) else model
    with torch.no_grad():
        together = last_logits(model, token_batch(ROWS, pad_id=0))
        for row, logits in zip(ROWS, together, strict=True):
            alone = inner(torch.tensor([row])).logits[0, -1]
            assert torch.allclose(logits, alone, atol=1e-5)


def reader_of(model: torch.nn.Module, **options: Any) -> LabelReader:
    return LabelReader(model, tiny_tokenizer(), ("Yes", "No"), "{text}", {"text"}, **options)


def test_labels_are_read_as_a_two_way_softmax() -> None:
    tokenizer, model = tiny_tokenizer(), tiny_causal_lm().eval()
    yes, no = tokenizer.convert_tokens_to_ids(["Yes", "No"])
    reader = reader_of(model, temperature=2.0)
    (reading,) = reader.read([{"text": "right?"}])
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer("right?")["input_ids"]])).logits[0, -1]
    expected = torch.softmax(logits[[yes, no]] / 2.0, 0)[0].item()
    assert reading.value == pytest.approx(expected, abs=1e-6)
    assert abs(expected - 0.5) > 0.01  # else anything near one half would pass


def test_a_model_that_gives_nan_has_no_reading() -> None:
    model = tiny_causal_lm()
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    (reading,) = reader_of(model).read([{"text": "right?"}])
    assert reading.value is None
    assert reading.problem == "the model gave nan"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("Maybe", "No"), "'Maybe' is the tokens"),
        (("é", "No"), "expected exactly one known token"),
        (("A", "A"), "are the same token"),
    ],
)
def test_labels_must_be_two_different_tokens(labels: tuple[str, str], message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        label_ids(TextEncoder(tiny_tokenizer()), labels, "right?")


def test_wrong_settings_are_refused() -> None:
    model = tiny_causal_lm()
    with pytest.raises(VerifierError, match="temperature is 0"):
        reader_of(model, temperature=0)
    with pytest.raises(VerifierError, match="batch_size is 0"):
        reader_of(model, batch_size=0)
    with pytest.raises(VerifierError, match="batch_size is 0"):
        row_results([], lambda batch: batch.last, model=model, pad_id=0, batch_size=0)
