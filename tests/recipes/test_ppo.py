"""Plain PPO: the recipe has no exploration, and a reward model may give the reward, as its README says."""

import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.recipe import load_recipe
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes" / "ppo"
SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", ["countdown.yaml", "gsm8k-qwen2.5-1.5b.yaml"])
def test_all_of_the_reward_is_the_outcome(name):
    recipe = load_recipe(FOLDER / name).recipe
    assert recipe.rewards.exploration is None
    assert recipe.train["alpha"] == 1.0


def test_the_readme_names_options_that_exist():
    text = (FOLDER / "README.md").read_text()
    code = re.search(r"RLSPConfig\(\n(.*?)\n\)", text, re.DOTALL).group(1)
    used = re.findall(r"^    (\w+)=", code, re.MULTILINE)
    assert len(used) == 11
    assert set(used) <= set(RLSPConfig.__dataclass_fields__)


def test_the_table_gives_the_defaults_that_there_are():
    table = (FOLDER / "README.md").read_text().partition("`PPOConfig(...)`:")[2]
    right = [row.split("|")[2] for row in table.splitlines() if row.startswith("| ")]
    claims = dict(re.findall(r"`(\w+)` \(([\w.e-]+)\)", "\n".join(right)))
    assert len(claims) >= 12
    defaults = {name: field.default for name, field in RLSPConfig.__dataclass_fields__.items()}
    assert {
        name: float(claim) if claim not in ("True", "False") else claim == "True" for name, claim in claims.items()
    } == {name: defaults[name] for name in claims}


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_reward_model_gives_the_reward_whatever_its_range(tmp_path, as_folder):
    tokenizer = countdown_tokenizer()
    torch.manual_seed(0)
    policy = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES))
    judge = LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), num_labels=1, **SIZES))
    with torch.no_grad():
        judge.score.weight.mul_(200)  # scores far from [0, 1], as those of reward models are
    judge.save_pretrained(tmp_path / "judge")
    tokenizer.save_pretrained(tmp_path / "judge")
    given = str(tmp_path / "judge")
    outcome = given if as_folder else LlamaForSequenceClassification.from_pretrained(given)
    args = RLSPConfig(
        str(tmp_path / "out"), alpha=1.0, no_answer_penalty=0.0, num_iterations=2, per_device_train_batch_size=4,
        steps_per_generation=2, gradient_accumulation_steps=2, max_completion_length=8, max_steps=4,
        critic_warmup_rollouts=0, use_cpu=True, bf16=False, gradient_checkpointing=False, logging_steps=1, report_to=[],
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": row["prompt"]} for row in countdown_rows("train", 40)])
    scores = []
    trainer = RLSPTrainer(policy, outcome, args=args, train_dataset=rows, processing_class=tokenizer)
    trainer._sample_sink = lambda _step, _rank, samples: scores.extend(
        (s.outcome_reward, s.total_reward) for s in samples
    )
    trainer.train()
    assert len(scores) == 16
    assert max(abs(outcome) for outcome, _ in scores) > 1
    assert all(total == pytest.approx(outcome) for outcome, total in scores)
