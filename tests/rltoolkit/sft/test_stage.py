"""SFT on a tiny random Llama: what is learned, what carries loss, what is saved, how it resumes."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig

from rltoolkit.data.demonstrations import build_demonstrations
from rltoolkit.data.load import load_rows
from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.errors import DataError
from rltoolkit.run.checkpoints import last_checkpoint
from rltoolkit.sft.stage import run_sft
from rltoolkit.sft.stop import StopAtAccuracy

TOKENIZER = countdown_tokenizer()


@dataclass(frozen=True)
class Source:
    path: str = "embedded:countdown"
    split: str = "train"
    limit: int | None = 12
    prompt: str | None = None
    completion: str | None = None
    format: str = "text"
    system: str | None = None


def tiny() -> LlamaForCausalLM:
    return countdown_model(0, TOKENIZER, hidden_size=24, intermediate_size=32, num_hidden_layers=1)


def demonstrations(limit: int = 12) -> Dataset:
    source = Source(limit=limit)
    return build_demonstrations(load_rows(source, "recipe.yaml"), source, TOKENIZER, 256)


def config(folder: Path, **options: object) -> SFTConfig:
    settings: dict[str, object] = {
        "output_dir": str(folder / "checkpoints"),
        "max_steps": 5,
        "save_steps": 2,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return SFTConfig(**{**settings, **options})  # type: ignore[arg-type]


class LossLog(TrainerCallback):  # type: ignore[misc]
    """The losses as they are logged; dies at a step if told to."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.losses: list[float] = []
        self.keys: list[set[str]] = []
        self.dies_at = dies_at

    def on_log(self, args: object, state: TrainerState, control: object, logs: dict[str, float], **_: object) -> None:
        self.keys.append(set(logs))
        if "loss" in logs:
            self.losses.append(logs["loss"])

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.global_step == self.dies_at:
            raise KeyboardInterrupt


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_first_loss_is_that_of_the_completions_and_their_ends_alone(tmp_path: Path) -> None:
    data = demonstrations(4)
    model = tiny()
    nats, tokens = 0.0, 0
    for row in data.to_list():
        prompt = len(TOKENIZER(row["prompt"])["input_ids"])
        ids = torch.tensor([row["input_ids"]])
        assert ids[0, -1] == TOKENIZER.eos_token_id
        with torch.no_grad():
            log_probs = model(ids).logits.log_softmax(-1)
        for position in range(prompt, ids.shape[1]):
            nats -= log_probs[0, position - 1, ids[0, position]].item()
            tokens += 1
    log = LossLog()

    run_sft(model, TOKENIZER, data, config(tmp_path, max_steps=1), model_dir=tmp_path / "model", callbacks=[log])

    assert log.losses == pytest.approx([nats / tokens], abs=2e-4)


def test_the_model_learns_the_demonstrations_and_to_end_them(tmp_path: Path) -> None:
    row = {"prompt": "3,5>8\n", "completion": "3+5=8 ok\n\\boxed{3+5}"}
    data = build_demonstrations(Dataset.from_list([row]), Source(), TOKENIZER, None)
    log = LossLog()
    arguments = config(tmp_path, max_steps=60, save_strategy="no")

    result = run_sft(tiny(), TOKENIZER, data, arguments, model_dir=tmp_path / "model", callbacks=[log])

    assert log.losses[0] > 3.0
    assert result.loss == log.losses[-1] < 0.05
    assert result.steps == 60
    assert result.resumed_from is None
    prompt = TOKENIZER(row["prompt"], return_tensors="pt")
    answer = result.model.generate(prompt["input_ids"], max_new_tokens=40, do_sample=False)[0]
    assert TOKENIZER.decode(answer) == row["prompt"] + row["completion"] + "</s>"


def test_model_is_an_ordinary_folder(tmp_path: Path) -> None:
    model_dir = tmp_path / "model"
    result = run_sft(tiny(), TOKENIZER, demonstrations(), config(tmp_path, max_steps=1), model_dir=model_dir)

    names = {path.name for path in model_dir.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    loaded, report = AutoModelForCausalLM.from_pretrained(model_dir, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert same(dict(loaded.state_dict()), dict(result.model.state_dict()))
    assert AutoTokenizer.from_pretrained(model_dir)("3,5>8\n")["input_ids"] == TOKENIZER("3,5>8\n")["input_ids"]
    assert not result.model.training


@pytest.mark.parametrize("dies_at", [1, 3])
def test_a_run_that_died_ends_with_the_weights_of_one_that_did_not(tmp_path: Path, dies_at: int) -> None:
    data = demonstrations()
    straight = LossLog()
    run_sft(tiny(), TOKENIZER, data, config(tmp_path / "a"), model_dir=tmp_path / "a" / "model", callbacks=[straight])
    broken = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        run_sft(tiny(), TOKENIZER, data, config(broken), model_dir=broken / "model", callbacks=[LossLog(dies_at)])
    assert not (broken / "model").exists()

    again = LossLog()
    result = run_sft(tiny(), TOKENIZER, data, config(broken), model_dir=broken / "model", callbacks=[again])

    resumed_at = dies_at - dies_at % 2
    expected = broken / "checkpoints" / f"checkpoint-{resumed_at}" if resumed_at else None
    assert result.resumed_from == expected
    assert result.steps == 5
    assert again.losses == straight.losses[resumed_at:]
    assert same(weights(broken / "model"), weights(tmp_path / "a" / "model"))


def test_a_run_that_died_before_it_saved_its_model_trains_no_further(tmp_path: Path) -> None:
    data = demonstrations()
    model_dir = tmp_path / "model"
    first = run_sft(tiny(), TOKENIZER, data, config(tmp_path), model_dir=model_dir)
    trained = weights(model_dir)
    shutil.rmtree(model_dir)

    second = run_sft(tiny(), TOKENIZER, data, config(tmp_path), model_dir=model_dir)

    assert (second.steps, second.loss) == (first.steps, first.loss) == (5, first.loss)
    assert same(weights(model_dir), trained)


def test_an_adapter_is_merged(tmp_path: Path) -> None:
    model_dir = tmp_path / "model"
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")

    result = run_sft(model, TOKENIZER, demonstrations(), config(tmp_path), model_dir=model_dir, peft_config=lora)

    assert not (model_dir / "adapter_config.json").exists()
    _, report = AutoModelForCausalLM.from_pretrained(model_dir, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    after = weights(model_dir)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name.split(".")[-2] for name in changed} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert same(dict(result.model.state_dict()), after)


def test_an_adapter_resumes_exactly(tmp_path: Path) -> None:
    data = demonstrations()
    finals = []
    for name, dies_at in (("a", None), ("b", 3)):
        folder = tmp_path / name
        torch.manual_seed(1)
        for death in (dies_at, None) if dies_at else (None,):
            lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
            callbacks = [LossLog(death)]
            arguments = {"model_dir": folder / "model", "peft_config": lora, "callbacks": callbacks}
            try:
                run_sft(tiny(), TOKENIZER, data, config(folder), **arguments)  # type: ignore[arg-type]
            except KeyboardInterrupt:
                assert last_checkpoint(folder / "checkpoints") is not None
        finals.append(weights(folder / "model"))
    assert same(*finals)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match="needs columns input_ids, labels, found prompt, completion"):
        run_sft(tiny(), TOKENIZER, rows, config(tmp_path), model_dir=tmp_path / "model")


def test_training_stops_at_a_measured_accuracy_and_stays_stopped(tmp_path: Path) -> None:
    data = demonstrations()
    scores = iter([0.1, 0.3, 0.9, 1.0])
    states: list[tuple[bool, bool]] = []

    def measure(model: LlamaForCausalLM) -> float:
        torch.rand(5)
        states.append((model.training, torch.is_grad_enabled()))
        return next(scores)

    options = {"max_steps": 20, "save_steps": 100}
    stop = StopAtAccuracy(measure, 0.3, every_steps=2)
    model_dir = tmp_path / "model"
    first = run_sft(tiny(), TOKENIZER, data, config(tmp_path, **options), model_dir=model_dir, callbacks=[stop])

    assert (first.steps, stop.accuracy) == (4, 0.3)
    assert states == [(False, False)] * 2
    saved = json.loads((tmp_path / "checkpoints" / "checkpoint-4" / "trainer_state.json").read_text())
    assert saved["global_step"] == 4
    trained = weights(model_dir)
    again = run_sft(tiny(), TOKENIZER, data, config(tmp_path, **options), model_dir=model_dir, callbacks=[stop])
    assert again.steps == 4
    assert same(weights(model_dir), trained)


def test_measuring_changes_nothing_that_training_draws(tmp_path: Path) -> None:
    data = demonstrations()
    finals, logs = [], []
    for name, measured in (("a", False), ("b", True)):
        model = countdown_model(0, TOKENIZER, hidden_size=24, num_hidden_layers=1, attention_dropout=0.5)

        def measure(_: LlamaForCausalLM) -> float:
            return float(torch.rand(3).mean() * 0)

        stop = [StopAtAccuracy(measure, 0.5, every_steps=1)] if measured else []
        logs.append(LossLog())
        model_dir = tmp_path / name / "model"
        run_sft(model, TOKENIZER, data, config(tmp_path / name), model_dir=model_dir, callbacks=[*stop, logs[-1]])
        finals.append(weights(model_dir))
    assert same(*finals)
    assert logs[0].keys == logs[1].keys  # a model left in evaluation mode is logged under other names


def test_never_measuring_is_refused() -> None:
    with pytest.raises(ValueError, match="every_steps is 0"):
        StopAtAccuracy(lambda _: 0.0, 0.5, every_steps=0)
