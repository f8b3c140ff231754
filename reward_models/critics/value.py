"""A value network as a critic: the value of a state, read after its last token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from reward_models.critics.critic import BaseCritic, Path
from reward_models.errors import VerifierError
from reward_models.local_models.encoding import Reading, Template, TextEncoder, context_limit
from reward_models.local_models.loading import load_tokenizer
from reward_models.local_models.prompts import Prompt

if TYPE_CHECKING:
    from reward_models.critics.value_model import ValueModel


class ValueCritic(BaseCritic):
    """Scores prompt and partial solution by the value at their last token; the empty path is the root's value.

    Messages go through the tokenizer's chat template with the answer opened (or the assistant's last message
    continued), a text prompt stands as it is (so that
    text rendered before keeps its own template); the steps follow without anything between. The range is that of the
    model's `squash`. What is longer than `max_length` tokens (None: as much as model and tokenizer allow) is not cut:
    it has no score; nor has a state with a special token in its steps or messages (end tokens behind the last step are
    dropped). In float32 a value does not depend on the other rows of the batch (to 1e-5).
    """

    def __init__(
        self,
        model: ValueModel,
        tokenizer: Any,
        *,
        template: Template = "auto",
        batch_size: int = 8,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise VerifierError(f"batch_size is {batch_size}; give a number of rows, at least 1")
        self.model = model
        limit = context_limit(tokenizer, model.backbone.config) if max_length is None else max_length
        self._encoder = TextEncoder(tokenizer, template=template, max_length=limit)
        self._batch_size = batch_size

    @classmethod
    def from_pretrained(cls, folder: str | FilePath, *, device: str | None = None, **options: Any) -> ValueCritic:
        """Load what `save_pretrained` wrote; `options` are those of the class.

        `device=None` is the current GPU where there is one, else the CPU.
        """
        import torch

        from reward_models.critics.value_model import ValueModel

        model = ValueModel.load(folder).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, load_tokenizer(str(folder)), **options)

    def save_pretrained(self, folder: str | FilePath) -> None:
        """Write model, settings and tokenizer into one folder."""
        self.model.save(folder)
        self._encoder.tokenizer.save_pretrained(folder)

    @property
    def value_range(self) -> tuple[float, float]:
        """That of the model's squashing."""
        from reward_models.critics.value_model import RANGES

        return RANGES[self.model.squash]

    def _score(self, prompts: Sequence[Prompt], paths: Sequence[Path]) -> list[Reading]:
        from reward_models.local_models.forward import row_results

        states = zip(prompts, paths, strict=True)
        encoded = [self._encoder.opened(prompt, "".join(path)) for prompt, path in states]
        pad_id = self._encoder.tokenizer.pad_token_id
        values = iter(
            row_results(
                [row.ids for row in encoded if row.ids is not None],
                self.model.last_values,
                model=self.model,
                pad_id=0 if pad_id is None else pad_id,  # masked out: any id does
                batch_size=self._batch_size,
            )
        )
        return [Reading(None, row.problem) if row.ids is None else Reading(next(values)) for row in encoded]
