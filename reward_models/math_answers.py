"""Mathematical answers: where they stand, and whether they equal the reference."""

from __future__ import annotations

import unicodedata
from typing import get_args

from reward_models.answers.compare import same_answer
from reward_models.answers.extraction import BoxChoice, ExtractionPolicy, after_thinking, extract
from reward_models.answers.limits import MAX_ANSWER_CHARS
from reward_models.answers.notation import normalise, visible
from reward_models.answers.plain_answers import read_integer, same_integer
from reward_models.answers.symbolic import load
from reward_models.errors import VerifierError
from reward_models.verdict import Verdict

# Control characters and lone halves of a surrogate pair.
_NO_TEXT = frozenset({"Cc", "Cs"})


class MathVerifier:
    r"""Compares the stated answer with the reference by the rules of `reward_models.answers.compare`.

    Nothing is tolerated that mathematics does not grant: 0.5 is not 50, 50.004 is not 50, 3.1416 is not \pi. What must
    not be computed (`reward_models.answers.limits`) is wrong unless it equals the reference as text. What none of our
    readers reads goes to math-verify, if it is short and holds nothing that grows. The verifier belongs into a
    `VerifierPool` all the same wherever answers come from a model.

    Args:
        extraction: "boxed" reads `\boxed{...}` alone; "marked" also a stated answer field; "lenient" also the
            last expression (see `reward_models.answers.extraction`).
        thinking_end: only the text behind the last one counts; None if the model does not mark it.
        box: "last" takes the last box with balanced braces; "first" the first box with at most one level of
            braces, as the released RLSP trainer did.
        integers_only: for benchmarks such as AIME: references and answers are single integers, compared digit by
            digit; any other reference is bad, any other answer wrong.

    Raises:
        VerifierError: an option has a value that does not exist.
    """

    def __init__(
        self,
        *,
        extraction: ExtractionPolicy = "boxed",
        thinking_end: str | None = "</think>",
        box: BoxChoice = "last",
        integers_only: bool = False,
    ) -> None:
        _require("extraction", extraction, get_args(ExtractionPolicy))
        _require("box", box, get_args(BoxChoice))
        self.extraction: ExtractionPolicy = extraction
        self.thinking_end = thinking_end
        self.box: BoxChoice = box
        self.integers_only = integers_only

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response; `detail` says which rule found the answer and which rule decided."""
        problem = self._reference_problem(reference)
        if problem is not None:
            return Verdict.bad_reference(f"reference {reference[:80]!r}: {problem}")
        found = extract(after_thinking(response, self.thinking_end), self.extraction, self.box)
        if found is None:
            return Verdict.no_answer(f"no answer in the form that extraction={self.extraction!r} reads")
        equal, rule = (same_integer if self.integers_only else same_answer)(reference, found.text)
        shown = found.text if len(found.text) <= MAX_ANSWER_CHARS else found.text[:MAX_ANSWER_CHARS] + "…"
        detail = f"{found.rule}; {rule}"
        return Verdict.correct(shown, detail) if equal else Verdict.wrong(shown, detail)

    def gold_response(self, reference: str) -> str | None:
        """A response that must be judged correct for this reference; None if it is bad or cannot be boxed."""
        if self._reference_problem(reference) is not None:
            return None
        response = reference if "\\boxed" in reference else f"\\boxed{{{reference}}}"
        found = extract(after_thinking(response, self.thinking_end), self.extraction, self.box)
        if found is None or not (found.text == reference.strip() or same_answer(reference, found.text).equal):
            return None
        return response

    def _reference_problem(self, reference: str) -> str | None:
        problem = reference_problem(reference)
        if problem is None and self.integers_only and read_integer(reference) is None:
            return "it is no integer, which integers_only=True asks for"
        return problem

    def warm_up(self) -> None:
        """Load the algebra; a pool calls this before the first answer."""
        load()


def reference_problem(reference: str) -> str | None:
    """Say why a reference cannot be compared with anything, or return None.

    Looks at the reference alone: were it to depend on the response, right answers would be kept and wrong
    ones left out.
    """
    if not normalise(visible(reference)):
        return "it is empty"
    if any(_is_no_text(character) for character in reference):
        return "it holds characters that are no text"
    if reference.rstrip().endswith("..") and not reference.rstrip().endswith("..."):
        return "it ends in two full stops, as texts do that were cut"
    if _unbalanced(reference):
        return "its braces do not balance"
    return None


def _is_no_text(character: str) -> bool:
    return character == "\ufffd" or (not character.isspace() and unicodedata.category(character) in _NO_TEXT)


def _unbalanced(text: str) -> bool:
    depth = 0
    for character in text.replace("\\{", "").replace("\\}", ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return True
    return depth != 0


def _require(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise VerifierError(f"MathVerifier {name} is {value!r}; expected one of {', '.join(allowed)}")
