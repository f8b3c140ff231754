"""A language model that reads two responses and answers A or B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reward_models.local_models.loading import load_model, load_tokenizer
from reward_models.local_models.prompts import Prompt, as_messages
from reward_models.preference.oracle import BaseOracle
from reward_models.preference.preference import Preference

# The form that RLHFlow's pairwise preference models read; {prompt} is the conversation as `turns` writes it.
DEFAULT_QUESTION = "[CONTEXT] {prompt} [RESPONSE A] {first} [RESPONSE B] {second} \n"
FIELDS = {"prompt", "first", "second"}


class PairwiseModelOracle(BaseOracle):
    """Compares with a causal language model: a two-way softmax over "A" and "B" as the next token.

    `question` is a text with the fields {prompt}, {first} and {second}; it is asked as a message of the user through
    the tokenizer's chat template, or as plain text where there is none. Every pair is asked in both orders and
    averaged; `report` says how much the order moved the answers. `labels` name the text in front and the other one.

    The defaults ask in the form of RLHFlow/pair-preference-model-LLaMA3-8B, whose authors left out the start token:
    use `bos=False` for it. A question longer than `max_length` tokens (None: as much as model and tokenizer allow) is
    not cut: that pair has no probability; nor has one with a special token in a text. The question's own marks, such
    as [RESPONSE B], are only text, which a response can imitate.

    Raises:
        VerifierError: a label is not one token after the question, or the question lacks a field.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        labels: tuple[str, str] = ("A", "B"),
        question: str = DEFAULT_QUESTION,
        bos: bool = True,
        temperature: float = 1.0,
        batch_size: int = 8,
        max_length: int | None = None,
    ) -> None:
        from reward_models.local_models.labels import LabelReader

        super().__init__()
        self.model = model
        self._reader = LabelReader(
            model,
            tokenizer,
            labels,
            question,
            FIELDS,
            bos=bos,
            temperature=temperature,
            batch_size=batch_size,
            max_length=max_length,
        )

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, *, device: str | None = None, dtype: Any = None, **options: Any
    ) -> PairwiseModelOracle:
        """Load a model and its tokenizer from a folder or a hub name; `options` are those of the class."""
        model = load_model("AutoModelForCausalLM", name_or_path, device=device, dtype=dtype)
        return cls(model, load_tokenizer(name_or_path), **options)

    def _compare(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        texts = zip([*prompts, *prompts], [*firsts, *seconds], [*seconds, *firsts], strict=True)
        answers = self._reader.read(
            [{"prompt": turns(prompt), "first": front, "second": other} for prompt, front, other in texts]
        )
        preferences = []
        for forward, backward in zip(answers[: len(prompts)], answers[len(prompts) :], strict=True):
            if forward.value is None or backward.value is None:  # one order alone would carry its bias
                preferences.append(Preference.failed(forward.problem or backward.problem))
            else:
                preferences.append(Preference.from_both_orders(forward.value, backward.value))
        return preferences


def turns(prompt: Prompt) -> str:
    """Write a conversation the way RLHFlow's pairwise models read their context; a text is one turn of the user."""
    written = [f"\n<turn> {message['role']}\n {message['content']}" for message in as_messages(prompt)]
    return "\n" + "".join(written) + "\n"
