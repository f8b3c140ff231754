"""A tiny policy, a dataset of easy prompts, and a trainer on them: everything real, nothing large."""

import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from reward_models.countdown import CountdownVerifier
from reward_models.reward_func import as_reward_func
from rltoolkit.embedded.countdown import countdown_rows
from rltoolkit.embedded.models import countdown_tokenizer
from rltoolkit.rlsp import RLSPConfig, RLSPTrainer

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture
def tokenizer():
    return countdown_tokenizer()


@pytest.fixture
def policy(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0, **SIZES)
    return LlamaForCausalLM(config)


@pytest.fixture
def prompts():
    return Dataset.from_list(
        [{"prompt": row["prompt"], "answer": row["answer"]} for row in countdown_rows("train", 40)]
    )


@pytest.fixture
def make_trainer(policy, tokenizer, prompts, tmp_path):
    """Build a trainer of 8 responses a rollout and 2 updates a rollout; options go to RLSPConfig."""

    def make(
        *,
        outcome=None,
        exploration=None,
        model=None,
        dataset=None,
        peft_config=None,
        sink=None,
        eval_dataset=None,
        alarm=None,
        backtracking=None,
        **options,
    ):
        settings = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 4,
            "steps_per_generation": 2,
            "gradient_accumulation_steps": 1,
            "max_completion_length": 8,
            "learning_rate": 1e-3,
            "critic_learning_rate": 1e-2,
            "critic_warmup_rollouts": 0,
            "max_steps": 4,
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            **options,
        }
        return RLSPTrainer(
            model if model is not None else policy,
            outcome if outcome is not None else as_reward_func(CountdownVerifier(), pool=False),
            exploration,
            RLSPConfig(**settings),
            dataset if dataset is not None else prompts,
            eval_dataset,
            processing_class=tokenizer,
            peft_config=peft_config,
            sample_sink=sink,
            alarm=alarm,
            backtracking=backtracking,
        )

    return make
