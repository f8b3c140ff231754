"""Countdown: reach the target with + - * / and every given number exactly once."""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from reward_models.answers.boxes import last_box
from reward_models.answers.extraction import after_thinking
from reward_models.countdown_solver import MOST_NUMBERS, solve
from reward_models.verdict import Verdict

# Six numbers with all brackets need about 60 characters; the limit also bounds the depth of the parser.
MAX_EXPRESSION_CHARS = 300
# A problem has a handful of numbers; these bound the work on a reference that is none.
MAX_NUMBERS = 20
MAX_NUMBER_DIGITS = 9

_DIGITS = rf"[0-9]{{1,{MAX_NUMBER_DIGITS}}}"
_REFERENCE = re.compile(
    rf"numbers=(?P<numbers>{_DIGITS}(?:,{_DIGITS}){{0,{MAX_NUMBERS - 1}}});target=(?P<target>-?{_DIGITS})"
)
_ALLOWED = re.compile(r"[0-9+\-*/() ]+")
_STATED_VALUE = re.compile(rf"-?[0-9]{{1,{2 * MAX_NUMBER_DIGITS}}}")
_SPELLINGS = [
    ("\\times", "*"),
    ("\\cdot", "*"),
    ("\\div", "/"),
    ("\\left", ""),
    ("\\right", ""),
    ("×", "*"),
    ("·", "*"),
    ("÷", "/"),
    ("−", "-"),
    ("–", "-"),
]
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class _UnreadableError(ValueError):
    """The text is no expression of the kind that is allowed."""


@dataclass(frozen=True, slots=True)
class CountdownProblem:
    """The numbers to combine and the value to reach."""

    numbers: tuple[int, ...]
    target: int

    def reference(self) -> str:
        """Return the problem as the reference string that `CountdownVerifier` reads."""
        return f"numbers={','.join(map(str, self.numbers))};target={self.target}"

    @staticmethod
    def from_reference(reference: str) -> CountdownProblem | None:
        """Read `numbers=3,5,2;target=16`; None if the text has any other form."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            return None
        return CountdownProblem(tuple(int(n) for n in found["numbers"].split(",")), int(found["target"]))


class CountdownVerifier:
    r"""Checks the expression in the last box, `\boxed{(3+5)*2}` or `\boxed{(3+5)*2=16}`, in exact fractions.

    The reference is `numbers=3,5,2;target=16`. `detail` of a wrong answer begins with "unreadable", "numbers"
    or "value". Nothing is evaluated by Python: the expression is read into a syntax tree of which only
    integers and the four operations are accepted.
    """

    def __init__(self, *, thinking_end: str | None = "</think>") -> None:
        self.thinking_end = thinking_end

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response; never raises on text."""
        problem = CountdownProblem.from_reference(reference)
        if problem is None:
            return Verdict.bad_reference(f"reference {reference[:80]!r}; expected the form 'numbers=3,5,2;target=16'")
        box = last_box(after_thinking(response, self.thinking_end))
        if box is None:
            return Verdict.no_answer("no closed \\boxed{...} in the response")
        answer = box.content.strip()
        complaint = _complaint(answer, problem)
        extracted = answer[:MAX_EXPRESSION_CHARS]
        return Verdict.wrong(extracted, complaint) if complaint else Verdict.correct(extracted, "value reached")

    def gold_response(self, reference: str) -> str | None:
        r"""Return a solution in a box; None where the reference cannot be read or has too many numbers to try all.

        A problem without a solution gives an empty box, so that a check of gold answers reports its row.
        """
        problem = CountdownProblem.from_reference(reference)
        if problem is None or len(problem.numbers) > MOST_NUMBERS:
            return None
        return f"\\boxed{{{solve(problem.numbers, problem.target) or ''}}}"


def _complaint(answer: str, problem: CountdownProblem) -> str:
    """Say what is wrong with the answer, or nothing."""
    try:
        expression, stated = _split_stated_value(_plain(answer))
        tree = _parse(expression)
        used = _numbers(tree)
    except _UnreadableError as error:
        return f"unreadable: {error}"
    if Counter(used) != Counter(problem.numbers):
        return f"numbers: used {sorted(used)}, must use each of {sorted(problem.numbers)} exactly once"
    try:
        value = _value(tree)
    except ZeroDivisionError:
        return "value: division by zero"
    if value != problem.target:
        return f"value: {value}, must be {problem.target}"
    if stated is not None and stated != value:
        return f"value: the answer says = {stated}, the expression is {value}"
    return ""


def _plain(answer: str) -> str:
    if len(answer) > MAX_EXPRESSION_CHARS:
        raise _UnreadableError(f"{len(answer)} characters, at most {MAX_EXPRESSION_CHARS}")
    for spelling, symbol in _SPELLINGS:
        answer = answer.replace(spelling, symbol)
    return " ".join(answer.split())


def _split_stated_value(answer: str) -> tuple[str, int | None]:
    """Split `(3+5)*2 = 16` into the expression and the value it claims."""
    expression, equals, stated = answer.partition("=")
    if not equals:
        return expression, None
    stated = stated.strip()
    if not _STATED_VALUE.fullmatch(stated):
        raise _UnreadableError(f"{stated[:40]!r} after '=' is no integer")
    return expression, int(stated)


def _parse(expression: str) -> ast.expr:
    expression = expression.strip()
    if not expression:
        raise _UnreadableError("the answer is empty")
    if not _ALLOWED.fullmatch(expression):
        raise _UnreadableError("only digits, + - * / and round brackets are allowed")
    try:
        return ast.parse(expression, mode="eval").body
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise _UnreadableError("not an arithmetic expression") from error


def _numbers(tree: ast.expr) -> list[int]:
    """Return the numbers in the tree; raises on a node that is no number and none of the four operations."""
    numbers: list[int] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            pending += [node.left, node.right]
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            numbers.append(node.value)
        else:
            raise _UnreadableError(f"{type(node).__name__} is not allowed; combine the numbers with + - * /")
    return numbers


def _value(tree: ast.expr) -> Fraction:
    """Evaluate a tree that `_numbers` has accepted and whose numbers are those of the problem."""
    if isinstance(tree, ast.BinOp):
        return _OPERATIONS[type(tree.op)](_value(tree.left), _value(tree.right))
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return Fraction(tree.value)
    raise _UnreadableError(f"{type(tree).__name__} is not allowed")
