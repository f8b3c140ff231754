"""The scalar head of a critic."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reward_models.errors import VerifierError


class ValueHead(nn.Module):
    """Maps hidden states to values: one linear layer without bias, weights from N(0, std = 1 / (hidden + 1)).

    With `outputs` above 1 there are several values per position, one per advantage stream.
    Fresh values are therefore near 0, with standard deviation ||h|| / (hidden + 1) (methods: RLSP, critic).
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        outputs: int = 1,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if hidden_size < 1:
            raise VerifierError(f"hidden_size is {hidden_size}; give the width of the backbone, at least 1")
        if outputs < 1:
            raise VerifierError(f"outputs is {outputs}; give the number of values per position, at least 1")
        self.hidden_size = hidden_size
        self.linear = nn.Linear(hidden_size, outputs, bias=False, dtype=dtype)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew."""
        nn.init.normal_(self.linear.weight, mean=0.0, std=1.0 / (self.hidden_size + 1), generator=generator)

    def forward(self, hidden_BTH: Tensor) -> Tensor:  # noqa: N803  axis suffix
        """(B, T, H) hidden states -> (B, T) values, (B, T, S) where there are several, in the dtype of the head."""
        values: Tensor = self.linear(hidden_BTH.to(self.linear.weight.dtype))
        return values.squeeze(-1) if self.linear.out_features == 1 else values
