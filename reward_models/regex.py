"""Answers that a regular expression finds, or that must match one."""

from __future__ import annotations

import re
import warnings

from reward_models.errors import VerifierError
from reward_models.stated_answer import AnswerPlace, AnswerReader, require_bool, shown, unreadable
from reward_models.text_match import plain_text
from reward_models.verdict import Verdict

# Compiling takes time and memory with the length; nobody writes a longer one by hand.
MAX_PATTERN_CHARS = 10_000

_META = frozenset(".^$*+?{}[]|()\\")


class RegexVerifier:
    r"""Reads the answer with a pattern, or takes the reference for the pattern that the answer must match.

    With `pattern`, for instance `#### (.+)`: its one group is the answer; of several matches the last one with
    anything in the group counts. The answer is compared with the reference as text (`text_match.plain_text`).

    Without: the reference is a regular expression, and the stated answer as a whole must match it (white space
    at its ends is dropped).

    Python's `re` has no limits: a pattern such as `(a+)+$` can take for ever on a short text. Only the time limit of
    a `VerifierPool` ends that; without a pool never take patterns or answers from somebody you do not know.

    Args:
        pattern: with exactly one group (...); None takes the reference for the pattern.
        ignore_case: capitals do not count, neither in matching nor in comparing.
        extraction: where the answer stands, only without `pattern`; None means "boxed", "whole" all of the text.
        thinking_end: only the text behind the last one counts; None if the model does not mark it.

    Raises:
        VerifierError: the pattern is no regular expression or has not one group, or an option has no such value.
    """

    def __init__(
        self,
        *,
        pattern: str | None = None,
        ignore_case: bool = False,
        extraction: AnswerPlace | None = None,
        thinking_end: str | None = "</think>",
    ) -> None:
        require_bool("RegexVerifier", "ignore_case", ignore_case)
        if pattern is not None and extraction is not None:
            raise VerifierError(
                f"RegexVerifier extraction is {extraction!r} beside a pattern, which finds the answer; remove one"
            )
        self.pattern = pattern
        self.ignore_case = ignore_case
        self._flags = re.IGNORECASE if ignore_case else 0
        self._reader = AnswerReader("RegexVerifier", extraction or "boxed", thinking_end)
        if pattern is not None:
            self._require_one_group(pattern)

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response; never raises on text, but may run for ever on a bad pattern."""
        return self._match(response, reference) if self.pattern is None else self._compare(response, reference)

    def gold_response(self, reference: str) -> str | None:
        """A response that states the reference; None where the pattern is more than plain text around its group."""
        if self.pattern is None:
            # A bad pattern is handed on, too: the check then says what is wrong with it.
            plain = not _META & set(reference) or self._compiled(reference)[0] is None
            return self._reader.stating(reference) if plain else None
        before, _, rest = self.pattern.partition("(")
        group, _, after = rest.rpartition(")")
        plain = not _META & set(before + after) and not set("()") & set(group) and not group.startswith("?")
        return f"{before}{reference}{after}" if plain else None

    def _compare(self, response: str, reference: str) -> Verdict:
        gold = plain_text(reference, ignore_case=self.ignore_case)
        if not gold:
            return unreadable(reference, "a text that is not empty")
        answer = ""
        for match in re.finditer(self.pattern or "", self._reader.text(response), self._flags):
            answer = match[1] or answer
        if not answer.strip():
            return Verdict.no_answer(f"the pattern {shown(self.pattern or '')!r} finds nothing")
        equal = plain_text(answer, ignore_case=self.ignore_case) == gold
        detail = "last match of the pattern; compared as text"
        return Verdict.correct(shown(answer), detail) if equal else Verdict.wrong(shown(answer), detail)

    def _match(self, response: str, reference: str) -> Verdict:
        compiled, problem = self._compiled(reference)
        if compiled is None:
            return unreadable(reference, f"a regular expression ({problem})")
        found = self._reader.read(response)
        if found is None:
            return self._reader.missing()
        matches = compiled.fullmatch(found.text) is not None
        detail = f"{found.rule}; {'matches' if matches else 'does not match'} the reference"
        return Verdict.correct(shown(found.text), detail) if matches else Verdict.wrong(shown(found.text), detail)

    def _require_one_group(self, pattern: str) -> None:
        if not isinstance(pattern, str):
            raise VerifierError(f"RegexVerifier pattern is {pattern!r}; expected a text or None")
        compiled, problem = self._compiled(pattern)
        if compiled is None:
            raise VerifierError(f"RegexVerifier pattern is {shown(pattern)!r}: {problem}; correct it")
        if compiled.groups != 1:
            raise VerifierError(
                f"RegexVerifier pattern {shown(pattern)!r} has {compiled.groups} groups; expected exactly one (...) "
                "around the answer. Write (?:...) for a group that is not the answer"
            )

    def _compiled(self, pattern: str) -> tuple[re.Pattern[str] | None, str]:
        """The pattern, or None and what is wrong with it."""
        if not pattern.strip():
            return None, "it is empty"
        if len(pattern) > MAX_PATTERN_CHARS:
            return None, f"it has {len(pattern)} characters, at most {MAX_PATTERN_CHARS}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of sets that later versions of `re` may read otherwise
                return re.compile(pattern, self._flags), ""
        except (re.error, OverflowError, RecursionError) as error:
            return None, str(error)
