r"""The last expression of a response: for evaluation, where a number in passing may be taken for the answer.

In this order:

- The whole response, if it is one line without formulas that is an expression, a number with up to three words,
  or a few words without any number.
- Of the last formula and the last number in plain text the later one. Formulas in a list count together. Formulas
  that are only names (`$n$`, `$ABC$`) count where there is nothing else. A number is read with what it is part of
  (`2√3`, `(1, 2)`, `3/4`, `50%`); of a chain of equations the last side counts. Numbers in words (`K2A`),
  in exponents and in indices are no numbers.
- Where the text has none, the same in blocks of code and their output.
"""

from __future__ import annotations

import re
from collections import deque

from reward_models.answers.formulas import formulas
from reward_models.answers.lists import as_one, last_list
from reward_models.answers.prose import without_code

# A longer response, or one of more words, is prose.
MAX_BARE_CHARS = 200
MAX_BARE_WORDS_CHARS = 60
MAX_UNIT_WORDS = 3
# So much of the text before and behind the last number is searched for what it is part of.
_BEFORE_CHARS, _BEHIND_CHARS = 200, 80

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
_NAME_ONLY = re.compile(r"[A-Za-z\s'{}]|\\(?:triangle|angle|overline|mathrm|text|mathbf|vec)(?![A-Za-z])")
_FREE_NUMBER = re.compile(r"(?<![\w.,^_\\])(?<![\^_]\{)(?:[0-9][0-9,]*+(?:\.[0-9]++)?|\.[0-9]++)")

_NUMBER = (
    r"(?:[$€£]\s?)?(?:[0-9]+(?:\s?:\s?[0-9]+)+|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:,[0-9]+)+"
    r"|[0-9]+\s[0-9]+/[0-9]+"
    r"|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:\s?(?:\\?%|°|!))?"
)
_GROUP = r"(?:[(\[{][-+−0-9a-zA-Z√π∞^*/.,\s]{1,60}[)\]}])"
_ARGUMENT = r"\{(?:[^{}\n]|\{[^{}\n]*\}){0,80}\}"
_COMMAND_PART = rf"(?:\\[A-Za-z]+\s?(?:{_ARGUMENT}){{0,3}})"
_LETTER = r"(?:[A-Za-z](?![A-Za-z]))"
_FUNCTION = r"(?:(?:sqrt|pi|sin|cos|tan|log|ln)(?![A-Za-z]))"
_SCRIPT = rf"(?:[\^_](?:{_ARGUMENT}|-?\w))"
_TERM = rf"(?<![A-Za-z0-9])[-+−±]?(?:{_NUMBER}|{_GROUP}|{_COMMAND_PART}|{_FUNCTION}|{_LETTER}|{_SCRIPT}|[√π∞°])++"
_OPERATOR = r"(?:\s*(?:\*\*|[-+−±*/^×·÷=≈≠<>≤≥])\s*)"
_EXPRESSION = re.compile(rf"{_TERM}(?:{_OPERATOR}{_TERM})*+")
_EQUALS = re.compile(r"(?<![<>!])=|≈|\\approx(?![A-Za-z])")


def whole_response(text: str) -> str | None:
    """Return a response that is nothing but an answer."""
    line = text.strip()
    if len(line) > MAX_BARE_CHARS:
        return None
    line = _END_TOKENS.sub("", line).strip("*`").strip()
    if not line or ("\n" in line and not line.startswith("\\begin{")):
        return None
    if next(formulas(line), None) is not None:
        return None
    words = [word.lower() for word in _WORD.findall(_COMMAND.sub(" ", line))]
    if set(words) <= _FUNCTIONS:
        return line
    if not any(character.isdigit() for character in line):
        return line if len(line) <= MAX_BARE_WORDS_CHARS else None
    starts_with_number = _FREE_NUMBER.match(line.lstrip("-+$€£ ")) is not None
    return line if starts_with_number and len(words) <= MAX_UNIT_WORDS else None


def last_expression(text: str) -> tuple[str, str] | None:
    """Return the last expression of a response and the rule that found it, or None."""
    prose = without_code(text)
    return _last_expression(prose) or (None if prose == text else _last_expression(text))


def _last_expression(text: str) -> tuple[str, str] | None:
    found = list(formulas(text))
    telling = [formula for formula in found if not _is_name(formula.content)]
    number = _last_number(text, after=telling[-1].end if telling else 0)
    if number is not None:
        return number, "last number"
    listed = last_list(text, telling or found)
    return (as_one([formula.content for formula in listed]), "last formula") if listed else None


def _is_name(formula: str) -> bool:
    return not _NAME_ONLY.sub("", formula)


def _last_number(text: str, after: int) -> str | None:
    """The last number behind a place in the text, with the expression it is part of."""
    numbers = deque(_FREE_NUMBER.finditer(text, after), maxlen=1)
    if not numbers:
        return None
    number = numbers[0]
    begin = max(after, text.rfind("\n", after, number.start()) + 1, number.start() - _BEFORE_CHARS)
    line = text[begin : number.end() + _BEHIND_CHARS].split("\n", 1)[0]
    position = number.start() - begin
    for expression in _EXPRESSION.finditer(line):
        if expression.start() <= position < expression.end():
            side = _EQUALS.split(expression[0])[-1].strip()
            return side or number[0].rstrip(",")
    return number[0].rstrip(",")
