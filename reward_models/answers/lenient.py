r"""The last expression of a response: for evaluation, where a number in passing may be taken for the answer.

- Of the last formula and the last number in plain text the later one. Formulas in a list count together. Formulas
  that are only names (`$n$`, `$ABC$`) count where there is nothing else.
- A number is read with what it is part of (`2√3`, `(1, 2)`, `3/4`, `50%`); of a chain of equations the last side
  counts. It is read with the words that change it, too, so that it does not equal the bare number: `negative 12`,
  `sqrt 12`, `at most 12`, `12 million`, `12 and a half`, `12 x`, `5 to 12`, `3 or 12`.
- Numbers in words (`K2A`), in exponents and in indices are no numbers; those in a remark in brackets
  (`(see Section 3)`) count only where there are no others.
- Where the text has none, the same in blocks of code and their output.
"""

from __future__ import annotations

import re
from collections import deque

from reward_models.answers.formulas import Formula, formulas
from reward_models.answers.lists import as_one, last_list
from reward_models.answers.prose import without_code

# So much of the text before and behind the last number is searched for what it is part of.
_BEFORE_CHARS, _BEHIND_CHARS = 200, 80

_NAME_ONLY = re.compile(r"[A-Za-z\s'{}]|\\(?:triangle|angle|overline|mathrm|text|mathbf|vec)(?![A-Za-z])")
_FREE_NUMBER = re.compile(r"(?<![\w.,^_\\])(?<![\^_]\{)(?:[0-9][0-9,]*+(?:\.[0-9]++)?|\.[0-9]++)")
_REMARK = re.compile(r"(?<![\w\\])\((?=[^()\n]*(?!sqrt)[A-Za-z]{4})[^()\n]{1,200}\)")

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
# What stands before a number and changes it, and what stands behind it.
_BEFORE = re.compile(
    r"(?<![\w\\])(?:(?:negative|minus|plus|times|choose|twice|sqrt|(?:log|ln|sin|cos|tan)(?:_\{?\w+\}?)?"
    r"|[\d/.]*\d\s*%?\s+of(?:\s+the)?|(?:square|cube)\s+root\s+of|(?:half|third|quarter|double|triple|percent|%)\s+of"
    r"|(?:less|more|fewer|greater|other|rather)\s+than|at\s+(?:most|least)|instead\s+of|except|not|never)\s+)+\Z",
    re.IGNORECASE,
)
_FRACTIONS = (
    r"(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|hundredths?)"
)
_BEHIND = re.compile(
    r"[A-Za-z]+"
    r"|(?:\s+(?:hundred|thousand|million|billion|trillion|dozen|percent|squared|cubed|factorial"
    rf"|(?:and\s+)?(?:an?|one|two|three)[\s-]{_FRACTIONS}|{_FRACTIONS}|repeating|(?![aAI]\b)[A-Za-z]\b(?!['’]|\.[a-z]))s?\b)+",
    re.IGNORECASE,
)
# Two numbers with only this between them are said together.
_JOINED = re.compile(r"\$?(?:\s*[,;]\s+(?:(?:and|or)\s+)?|\s+(?:and|or|to|through|plus|minus|times|choose)\s+)\$?")


def last_expression(text: str) -> tuple[str, str] | None:
    """Return the last expression of a response and the rule that found it, or None."""
    prose = without_code(text)
    return _last_expression(prose) or (None if prose == text else _last_expression(text))


def _last_expression(text: str) -> tuple[str, str] | None:
    found = list(formulas(text))
    telling = [formula for formula in found if not _is_name(formula.content)]
    number = _last_number(text, telling[-1] if telling else None)
    if number is not None:
        return number, "last number"
    listed = last_list(text, telling or found)
    return (as_one([formula.content for formula in listed]), "last formula") if listed else None


def _is_name(formula: str) -> bool:
    return not _NAME_ONLY.sub("", formula)


def _last_number(text: str, formula: Formula | None) -> str | None:
    """The last number behind the last formula, with what it is part of."""
    after = 0 if formula is None else formula.end
    number = _last_match(_REMARK.sub(lambda remark: " " * len(remark[0]), text), after)
    if number is None and formula is None:
        number = _last_match(text, after)
    if number is None:
        return None
    begin = max(after, text.rfind("\n", after, number.start()) + 1, number.start() - _BEFORE_CHARS)
    line = text[begin : number.end() + _BEHIND_CHARS].split("\n", 1)[0]
    position = number.start() - begin
    expressions = list(_EXPRESSION.finditer(line))
    for index, expression in enumerate(expressions):
        if expression.start() <= position < expression.end():
            formula_before = text[formula.start : after] if formula is not None and begin == after else ""
            return _in_full(line, expressions[: index + 1], formula_before) or number[0].rstrip(",")
    return number[0].rstrip(",")


def _last_match(text: str, after: int) -> re.Match[str] | None:
    return next(iter(deque(_FREE_NUMBER.finditer(text, after), maxlen=1)), None)


def _in_full(line: str, expressions: list[re.Match[str]], formula_before: str) -> str:
    """The last of the expressions with those that are said together with it and the words that change them.

    `formula_before` is the formula that ends where the line begins, if there is one.
    """
    first = last = expressions[-1]
    for earlier in reversed(expressions[:-1]):
        if not (_JOINED.fullmatch(line, earlier.end(), first.start()) and any(map(str.isdigit, earlier[0]))):
            break
        first = earlier
    behind = _BEHIND.match(line, last.end())
    end = last.end() if behind is None else behind.end()
    if formula_before and _JOINED.fullmatch(line, 0, first.start()):
        return formula_before + line[:end]
    said = line[first.start() : end]
    sides = _EQUALS.split(said)
    before = _BEFORE.search(line[: first.start()]) if len(sides) == 1 else None
    return ((before[0] if before else "") + sides[-1]).strip()
