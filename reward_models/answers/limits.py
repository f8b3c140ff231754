"""What is refused before any reader of expressions sees it.

Nine characters can ask for a number with more digits than there are atoms. The time limit of a pool would end
that; refusing costs nothing. What algebra may see is narrower still (`readable_by_algebra` in `symbolic`). An
answer that is refused is wrong unless it equals the reference as text.
"""

from __future__ import annotations

import re

# The longest true answers of the public data have some 220 characters.
MAX_ANSWER_CHARS = 500
# Matrices of fractions of roots nest six deep; the grammar's time grows steeply with depth.
MAX_NESTING = 12
# Arithmetic on longer integers is slow, and exact comparison of integers as text needs no algebra.
MAX_DIGITS_IN_A_ROW = 100
# Powers multiply digits: 2^9999 has 3010 of them. Contest answers such as 2^{2024} stay below.
MAX_EXPONENT_DIGITS = 4
# `e^{-x^2}` has two floors. A tower of numbers is refused at two already (9^{9^9} cannot be stored), unless its
# exponent is as small as others: `2^{2^3}`.
MAX_POWER_FLOORS = 2
# Powers of powers multiply their exponents.
MAX_STACKED_POWER = 20_000
# 999! has 2565 digits; (10^9)! does not fit into memory.
MAX_FACTORIAL_DIGITS = 3

# `2^{2^3}`
_SMALL_TOWER = re.compile(r"\s*[({]?\s*([0-9]{1,4})\s*\^\s*\{?\s*([0-9]{1,2})\s*\}?\s*[)}]?\s*")
_DIGITS = re.compile(r"[0-9]+")
_EXPONENT_NUMBER = re.compile(r"\^\s*[({]*\s*[+-]?\s*0*([0-9]+)")
_POWER_NUMBER = re.compile(r"\s*\^\s*[({]*\s*[+-]?\s*0*([0-9]{1,4})(?![0-9])")
_FACTORIAL = re.compile(r"([0-9]+|[)}\]!])(?=\s*!)")
# `(n-1)!` stays a symbol.
_SMALL_FACTORIAL = re.compile(r"\(\s*(?:[0-9]\s*)?[A-Za-z]\s*(?:[+-]\s*[0-9A-Za-z]\s*)?\)\s*!(?!\s*!)")
_BINOMIAL = re.compile(r"\\[dt]?binom\s*(\{[^{}]*\}?|\S)")
_SMALL_ARGUMENT = re.compile(rf"\{{?\s*(?:[0-9]{{1,{MAX_FACTORIAL_DIGITS}}}|[A-Za-z](?:\s*[+-]\s*[0-9])?)\s*\}}?")
# Operators that compute without bound. A final answer states the result instead.
_UNBOUNDED = re.compile(
    r"\\(?:sum|prod|i{0,3}int|oint|lim|limsup|liminf|underbrace|overbrace|Gamma\s*\(|uparrow)(?![a-zA-Z])"
)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_VARIABLE = re.compile(r"[A-Za-z]")
_ATOM = re.compile(r"\s*[+-]?\s*(?:\\[A-Za-z]+|[0-9]+|\S)")
_ARGUMENT = re.compile(r"\s*[{\[]")
_CARET = re.compile(r"\s*\^")
_OPENING = "({["
_CLOSING = ")}]"


def refusal(text: str) -> str | None:
    """Say why an expression must not be parsed, or return None if it may be."""
    if len(text) > MAX_ANSWER_CHARS:
        return f"{len(text)} characters, at most {MAX_ANSWER_CHARS}"
    if _nesting(text) > MAX_NESTING:
        return f"brackets nested more than {MAX_NESTING} deep"
    longest = max((len(run) for run in _DIGITS.findall(text)), default=0)
    if longest > MAX_DIGITS_IN_A_ROW:
        return f"a number of {longest} digits, at most {MAX_DIGITS_IN_A_ROW}"
    return _power_refusal(text.replace("**", "^")) or _operator_refusal(text)


def _power_refusal(text: str) -> str | None:
    if any(len(number) > MAX_EXPONENT_DIGITS for number in _EXPONENT_NUMBER.findall(text)):
        return f"an exponent of more than {MAX_EXPONENT_DIGITS} digits"
    for exponent in _exponents(text):
        if "^" not in exponent:
            continue
        if any("^" in inner for inner in _exponents(exponent)):
            return f"a tower of more than {MAX_POWER_FLOORS} powers"
        small = _SMALL_TOWER.fullmatch(exponent)
        if small is not None and int(small[1]) ** int(small[2]) < 10**MAX_EXPONENT_DIGITS:
            continue
        if not _VARIABLE.search(_COMMAND.sub("", exponent)):
            return "a power of numbers in an exponent"
    if _stacked_power(text) > MAX_STACKED_POWER:
        return f"powers of powers that multiply to more than {MAX_STACKED_POWER}"
    return None


def _stacked_power(text: str) -> int:
    """The largest product of exponents that are applied one after another: 9999 * 9999 for `(2^{9999})^{9999}`."""
    levels = [1]
    position = 0
    while position < len(text):
        character = text[position]
        inner = 1
        if character in _OPENING:
            levels.append(1)
        elif character in _CLOSING and len(levels) > 1:
            inner = levels.pop()
        if character not in _OPENING:
            found = _POWER_NUMBER.match(text, position + 1)
            levels[-1] = max(levels[-1], inner * int(found[1]) if found is not None else inner)
        position += 1
    return max(levels)


def _operator_refusal(text: str) -> str | None:
    factorials = (argument for argument in _FACTORIAL.findall(_SMALL_FACTORIAL.sub("n", text)))
    if any(not argument.isdigit() or len(argument) > MAX_FACTORIAL_DIGITS for argument in factorials):
        return f"a factorial of more than a number of {MAX_FACTORIAL_DIGITS} digits"
    if not all(_SMALL_ARGUMENT.fullmatch(argument) for argument in _BINOMIAL.findall(text)):
        return f"a binomial of more than a number of {MAX_FACTORIAL_DIGITS} digits"
    operator = _UNBOUNDED.search(text)
    return None if operator is None else f"the operator {operator[0]}"


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSING:
            depth = max(0, depth - 1)
    return deepest


def _exponents(text: str) -> list[str]:
    """Return what stands in the exponent of each power; of `a^b^c` the exponent of a is `b^c`."""
    return [_exponent_at(text, caret + 1) for caret, character in enumerate(text) if character == "^"]


def _exponent_at(text: str, start: int) -> str:
    """An exponent is a bracket, a command with its arguments, a number or a letter, and what these are raised to."""
    position = start
    while (atom := _ATOM.match(text, position)) is not None:
        position = atom.end()
        if text[position - 1] in _OPENING:
            position = _behind_bracket(text, position)
        elif "\\" in atom[0]:
            while (argument := _ARGUMENT.match(text, position)) is not None:
                position = _behind_bracket(text, argument.end())
        caret = _CARET.match(text, position)
        if caret is None:
            break
        position = caret.end()
    return text[start:position]


def _behind_bracket(text: str, position: int) -> int:
    """Return where the bracket that was opened just before `position` has been closed."""
    depth = 1
    while position < len(text) and depth:
        depth += (text[position] in _OPENING) - (text[position] in _CLOSING)
        position += 1
    return position
