r"""A text that is nothing but an answer.

That is one line without `$` that is an expression, a number with up to three words, or a few words without any number.
"""

from __future__ import annotations

import re

from reward_models.answers.formulas import formulas
from reward_models.answers.prose import without_emphasis

# A longer text, or one of more words, is prose.
MAX_BARE_CHARS = 200
MAX_BARE_WORDS_CHARS = 60
MAX_UNIT_WORDS = 3

_COMMAND = re.compile(
    r"\\(?:begin|end)\{[^{}]*\}|\\(?:text|textrm|mathrm|mbox|operatorname|mathbf)\s*\{[^{}]*\}|\\[A-Za-z]+"
)
_WORD = re.compile(r"[A-Za-z]{2,}")
# What a tokenizer writes for the end of a turn.
_END_TOKENS = re.compile(r"(?:\s*(?:<\|[\w ]*\|>|</s>|<eos>|<end_of_turn>))+\Z")
# Names that may stand in a bare formula although they look like words.
_FUNCTIONS = frozenset(
    {"sqrt", "pi", "sin", "cos", "tan", "sec", "csc", "cot", "log", "ln", "exp", "or", "and", "am", "pm", "inf"}
)
_NUMBER_FIRST = re.compile(r"[-+$€£ ]*\.?[0-9]")


def whole_answer(text: str) -> str | None:
    """Return a text that is nothing but an answer, without mark-up and end of turn; None for any other."""
    line = text.strip()
    if len(line) > MAX_BARE_CHARS:
        return None
    line = without_emphasis(_END_TOKENS.sub("", line)).strip("*`#").strip()
    if not line or ("\n" in line and not line.startswith("\\begin{")):
        return None
    if next(formulas(line), None) is not None:
        return None
    words = [word.lower() for word in _WORD.findall(_COMMAND.sub(" ", line))]
    if set(words) <= _FUNCTIONS:
        return line
    if not any(character.isdigit() for character in line):
        return line if len(line) <= MAX_BARE_WORDS_CHARS else None
    return line if _NUMBER_FIRST.match(line) and len(words) <= MAX_UNIT_WORDS else None
