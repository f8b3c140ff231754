"""Which samples are decoded together: sorted by length, within a budget of tokens."""

from collections.abc import Sequence

__all__ = ["plan_batches"]


def plan_batches(lengths: Sequence[int], new_tokens: int, budget: int) -> list[list[int]]:
    """Divide rows into batches of similar prompt length, each within the budget.

    A batch keeps rows x (longest prompt + new tokens) <= budget. `lengths` are the prompts' tokens.
    Returns indices into it; every row is in exactly one batch. The longest come first, so that memory
    that does not suffice shows at once. A row that alone passes the budget has its own batch.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches:
            width = lengths[batches[-1][0]] + new_tokens
            if (len(batches[-1]) + 1) * width <= budget:
                batches[-1].append(row)
                continue
        batches.append([row])
    return batches
