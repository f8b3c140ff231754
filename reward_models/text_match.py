"""Answers that are text: equal after a normalisation that is written down."""

from __future__ import annotations

import re
import unicodedata

from reward_models.stated_answer import AnswerPlace, AnswerReader, require_bool, shown, unreadable
from reward_models.verdict import Verdict

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


class ExactVerifier:
    r"""Compares the stated answer with the reference as text.

    Both are first brought to one form (`plain_text`): a `\text{...}` around the whole is taken off, white space at
    the ends is dropped and elsewhere becomes one blank, characters with accents are composed (Unicode NFC). All
    else counts: full stops, quotes, and capitals unless `ignore_case`.

    Args:
        ignore_case: capitals do not count.
        extraction: where the answer stands (see `reward_models.answers.extraction`); "whole" is all of the text.
        thinking_end: only the text behind the last one counts; None if the model does not mark it.

    Raises:
        VerifierError: an option has a value that does not exist.
    """

    def __init__(
        self,
        *,
        ignore_case: bool = False,
        extraction: AnswerPlace = "boxed",
        thinking_end: str | None = "</think>",
    ) -> None:
        require_bool("ExactVerifier", "ignore_case", ignore_case)
        self.ignore_case = ignore_case
        self._reader = AnswerReader("ExactVerifier", extraction, thinking_end)

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response; never raises on text."""
        gold = plain_text(reference, ignore_case=self.ignore_case)
        if not gold:
            return unreadable(reference, "a text that is not empty")
        found = self._reader.read(response)
        if found is None:
            return self._reader.missing()
        equal = plain_text(found.text, ignore_case=self.ignore_case) == gold
        detail = f"{found.rule}; compared as text"
        return Verdict.correct(shown(found.text), detail) if equal else Verdict.wrong(shown(found.text), detail)

    def gold_response(self, reference: str) -> str | None:
        """A response that states the reference; None where none can."""
        return self._reader.stating(reference)


def plain_text(text: str, *, ignore_case: bool = False) -> str:
    """The form in which texts are compared."""
    wrapped = _TEXT_COMMAND.fullmatch(text.strip())
    plain = " ".join(unicodedata.normalize("NFC", wrapped[1] if wrapped else text).split())
    # Folding may take a composed character apart again.
    return unicodedata.normalize("NFC", plain.casefold()) if ignore_case else plain
