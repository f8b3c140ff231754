"""A verifier of one's own, complete: answers that are lists in any order, such as all divisors of a number."""

from __future__ import annotations

from collections import Counter

from reward_models import Verdict
from reward_models.answers.boxes import last_box
from reward_models.answers.extraction import after_thinking


class UnorderedList:
    r"""Compares the items in the last `\boxed{...}` with those of the reference; their order does not count.

    Repeated items do: `2, 2, 3` is not `2, 3`. White space around items is dropped.
    """

    def __init__(self, *, separator: str = ",") -> None:
        """Every argument is an option in the recipe; a ValueError here is told as a mistake in the recipe."""
        if not separator:
            raise ValueError("separator is empty; give the text that stands between two items")
        self.separator = separator

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response. Pure: no files, no network, nothing kept between two calls."""
        gold = self._items(reference)
        if not gold:
            return Verdict.bad_reference(f"reference {reference[:80]!r} holds no items")
        box = last_box(after_thinking(response, "</think>"))
        if box is None:
            return Verdict.no_answer("no closed \\boxed{...} in the response")
        answer = self._items(box.content)
        missing, extra = gold - answer, answer - gold
        if missing or extra:
            return Verdict.wrong(box.content, f"missing: {_listed(missing)}; too many: {_listed(extra)}")
        return Verdict.correct(box.content, "the same items")

    def gold_response(self, reference: str) -> str:
        """A right response, by which `rltoolkit check` tries every reference before training. May be left out."""
        return f"\\boxed{{{reference}}}"

    def _items(self, text: str) -> Counter[str]:
        items = (" ".join(part.split()) for part in text.split(self.separator))
        return Counter(item for item in items if item)


def _listed(items: Counter[str]) -> str:
    return ", ".join(sorted(items.elements())[:5]) or "none"
