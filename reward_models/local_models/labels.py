"""A causal language model asked for one of two words: the probability of the first against the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from reward_models.errors import VerifierError
from reward_models.local_models.encoding import Encoded, Reading, Template, TextEncoder, context_limit
from reward_models.local_models.forward import TokenBatch, last_logits, row_results
from reward_models.local_models.questions import checked_question
from reward_models.local_models.special_tokens import without_end


class LabelReader:
    """Reads P(first label) / (P(first label) + P(second label)) at the place where the answer starts.

    `question` has the `fields` in braces. A chat template is used where the tokenizer has one (`template="auto"` reads
    a question as a message of the user). Each label must be one token there, right after the question. `bos=False`
    leaves the start token out. A text that brings a special token along is not asked about; end tokens behind it are
    dropped.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        labels: tuple[str, str],
        question: str,
        fields: set[str],
        *,
        template: Template = "auto",
        bos: bool = True,
        temperature: float = 1.0,
        batch_size: int = 8,
        max_length: int | None = None,
    ) -> None:
        if not temperature > 0:
            raise VerifierError(f"temperature is {temperature}; give a number > 0")
        if batch_size < 1:
            raise VerifierError(f"batch_size is {batch_size}; give a number of rows, at least 1")
        self.model = model
        self._question = checked_question(question, fields)
        self._example = question.format(**dict.fromkeys(fields, "x"))
        if template == "auto":
            template = "chat" if tokenizer.chat_template else "plain"
        limit = context_limit(tokenizer, model.config) if max_length is None else max_length
        self.encoder = TextEncoder(tokenizer, template=template, max_length=limit)
        self.label_ids = label_ids(self.encoder, labels, self._example, bos=bos)
        self._bos = bos
        self._temperature = temperature
        self._batch_size = batch_size

    def read(self, texts: Sequence[Mapping[str, str]]) -> list[Reading]:
        """Return one reading in [0, 1] per question, in order; each is given by the texts of its fields."""
        encoded = [self._asked(fields) for fields in texts]
        pad_id = self.encoder.tokenizer.pad_token_id
        numbers = iter(
            row_results(
                [row.ids for row in encoded if row.ids is not None],
                self._first_label,
                model=self.model,
                pad_id=0 if pad_id is None else pad_id,  # masked out: any id does
                batch_size=self._batch_size,
            )
        )
        return [Reading(None, row.problem) if row.ids is None else _reading(next(numbers)) for row in encoded]

    def _asked(self, fields: Mapping[str, str]) -> Encoded:
        end = self.encoder.tokenizer.eos_token
        question = self._question.format(**{name: without_end(text, end) for name, text in fields.items()})
        for token in self.encoder.special_tokens:
            if question.count(token) > self._example.count(token):  # in one text, or where two of them meet
                return Encoded(None, f"the texts hold the special token {token!r}")
        return self.encoder.opened(question, bos=self._bos)

    def _first_label(self, batch: TokenBatch) -> torch.Tensor:
        first, second = self.label_ids
        logits = last_logits(self.model, batch)
        return torch.sigmoid((logits[:, first] - logits[:, second]) / self._temperature)


def _reading(number: float) -> Reading:
    return Reading(number) if number == number else Reading(None, "the model gave nan")


def label_ids(encoder: TextEncoder, labels: tuple[str, str], question: str, *, bos: bool = True) -> tuple[int, int]:
    """Return the token ids of two labels as answers to a question.

    Raises:
        VerifierError: a label is not exactly one known token there, or both are the same.
    """
    ids = []
    for label in labels:
        found = encoder.first_word(question, label, bos=bos)
        if found.ids is None:
            raise VerifierError(f"the label {label!r} cannot be read after the question: {found.problem}")
        if len(found.ids) != 1 or found.ids[0] == encoder.tokenizer.unk_token_id:
            raise VerifierError(
                f"the label {label!r} is the tokens {list(found.ids)} after the question; expected exactly one known "
                "token. Give labels that the model was trained to answer with"
            )
        ids.append(found.ids[0])
    if ids[0] == ids[1]:
        raise VerifierError(f"the labels {labels} are the same token {ids[0]}; give two different ones")
    return ids[0], ids[1]
