"""A reward model as a preference oracle: P(first beats second) = sigmoid((r_first - r_second) / temperature)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from reward_models.errors import VerifierError
from reward_models.local_models.encoding import Encoded, Reading, Template, TextEncoder, context_limit, same_length
from reward_models.local_models.loading import load_model, load_tokenizer
from reward_models.local_models.prompts import Prompt, prompt_problem, text_problem
from reward_models.preference.oracle import BaseOracle
from reward_models.preference.preference import Preference


class BradleyTerryOracle(BaseOracle):
    """Compares by the rewards of a sequence classification model with one label.

    Texts are written as TRL's RewardTrainer writes them: prompt messages and the response through the chat template;
    a text prompt joined with the response and the end token, without one (`template="chat"` makes a text prompt a
    message of the user instead). The model is used on its device and in its dtype. Each different prompt and response
    costs one forward pass per call, so that K responses cost K. What is longer than `max_length` tokens (None: as
    much as model and tokenizer allow) is not cut: it has no reward. Nor has a response or message with a special token
    in its text (an end token behind a response is dropped, as another one follows anyway).

    In float32 a reward does not depend on the other rows of the batch (to 1e-5); in bfloat16 it does in the last bits.

    Raises:
        VerifierError: the model has another number of labels than one, or no padding token.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        template: Template = "auto",
        temperature: float = 1.0,
        batch_size: int = 8,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise VerifierError(f"temperature is {temperature}; give a number > 0")
        if batch_size < 1:
            raise VerifierError(f"batch_size is {batch_size}; give a number of rows, at least 1")
        self.model = model
        self._pad_id = _checked_pad_id(model)
        limit = context_limit(tokenizer, model.config) if max_length is None else max_length
        self._encoder = TextEncoder(tokenizer, template=template, max_length=limit)
        self._temperature = temperature
        self._batch_size = batch_size

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, *, device: str | None = None, dtype: Any = None, **options: Any
    ) -> BradleyTerryOracle:
        """Load a reward model and its tokenizer from a folder or a hub name; `options` are those of the class.

        A config without a padding token gets the tokenizer's. Raises VerifierError for a checkpoint without a head.
        """
        tokenizer = load_tokenizer(name_or_path)
        model = load_model("AutoModelForSequenceClassification", name_or_path, device=device, dtype=dtype)
        config = model.config.get_text_config()
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id
        return cls(model, tokenizer, **options)

    def rewards(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float | None]:
        """Return one reward per response, in order; None where there is none (too long, no text, not finite)."""
        same_length(prompts=prompts, responses=responses)
        return [reading.value for reading in self._read(list(zip(prompts, responses, strict=True)))]

    def _compare(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        count = len(prompts)
        readings = self._read([*zip(prompts, firsts, strict=True), *zip(prompts, seconds, strict=True)])
        pairs = zip(readings[:count], readings[count:], strict=True)
        return [bradley_terry(first, second, self._temperature) for first, second in pairs]

    def _read(self, answers: list[tuple[Prompt, str]]) -> list[Reading]:
        from reward_models.local_models.forward import classifier_logits, row_results

        encoded = [self._encode(prompt, response) for prompt, response in answers]
        rewards = iter(
            row_results(
                [row.ids for row in encoded if row.ids is not None],
                lambda batch: classifier_logits(self.model, batch)[:, 0],
                model=self.model,
                pad_id=self._pad_id,
                batch_size=self._batch_size,
            )
        )
        return [Reading(None, row.problem) if row.ids is None else _finite(next(rewards)) for row in encoded]

    def _encode(self, prompt: Prompt, response: str) -> Encoded:
        problem = prompt_problem(prompt) or text_problem(response, "the response")
        return Encoded(None, problem) if problem else self._encoder.answered(prompt, response)


def bradley_terry(first: Reading, second: Reading, temperature: float = 1.0) -> Preference:
    """Compare two rewards; P(a, b) + P(b, a) is exactly 1."""
    if first.value is None or second.value is None:
        name, problem = ("first", first.problem) if first.value is None else ("second", second.problem)
        return Preference.failed(f"the {name} text: {problem}")
    gap = (first.value - second.value) / temperature
    likelier = 1.0 / (1.0 + math.exp(-abs(gap)))
    return Preference(likelier if gap >= 0 else 1.0 - likelier)


def _finite(reward: float) -> Reading:
    return Reading(reward) if math.isfinite(reward) else Reading(None, f"the reward model gave {reward}")


def _checked_pad_id(model: Any) -> int:
    config = model.config
    if config.num_labels != 1:
        raise VerifierError(
            f"{type(model).__name__} has {config.num_labels} labels; expected a reward model with one "
            "(AutoModelForSequenceClassification with num_labels=1)"
        )
    pad_id = config.get_text_config().pad_token_id
    if pad_id is None:
        raise VerifierError(
            f"the config of {type(model).__name__} has no pad_token_id, by which it finds the last token of a row; "
            "set model.config.pad_token_id to that of the tokenizer"
        )
    return int(pad_id)
