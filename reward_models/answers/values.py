r"""Whether two scalar expressions are the same: exactly where both are rational, else by their values at many points.

Without variables both sides are computed: in fractions as long as everything stays rational, else to so many
digits that numbers which differ as texts differ as values. With variables both sides are computed at
rational points, positive and negative; an identity that holds at all of them holds. Nothing is simplified, printed or
evaluated as code, and the cost is bounded by the size of the texts.

Policies:
- A decimal is the rational number it writes: 0.8660254037844386 is not \sqrt3/2, 0.3333 is not 1/3.
- Variables are real, and points where a side has no real value are passed over; `\sqrt{ab}` equals `\sqrt a\sqrt b`,
  `\sqrt{x^2}` equals `|x|` and not `x`. If `i` occurs, or a side has hardly any real value, complex values count.
- An odd root of a negative number is the real one.
- A degree sign multiplies by \pi/180.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, gcd, isqrt, lcm
from typing import Any

from reward_models.answers.expressions import Node, variables

POINTS = 6
# Points that are tried until so many have values on both sides.
TRIED_POINTS = 40
# Relative agreement that counts as equality has so many digits, and those of the texts beyond.
DIGITS = 40
# Cancellation between large and small intermediate values needs more digits; beyond, nothing is decided.
MAX_DIGITS = 3000
# A power of fractions beyond is computed to finitely many digits instead.
MAX_EXACT_BITS = 40_000
# No exact root is looked for in a longer whole number.
MAX_ROOT_BITS = 4000
MAX_FACTORIAL = 999
# Functions, roots and powers that are computed to many digits; a final answer has a few.
MAX_FUNCTIONS = 40
_COSTLY = frozenset({"function", "root", "factorial", "binomial", "degrees"})
# Beyond, even the exponent of a floating-point number costs.
MAX_LOG2 = 10**7

Value = Any  # Fraction, or a number of mpmath, which has no types


class UndefinedError(ValueError):
    """An expression has no value (of the kind asked for) at a point, or one that is too costly to compute."""


def exact_value(node: Node) -> Fraction | None:
    """The value of an expression that is rational on its face, or None."""
    try:
        value = _Evaluation({}, DIGITS, real=False).of(node)
    except (UndefinedError, ArithmeticError):
        return None
    return value if isinstance(value, Fraction) else None


def same_value(first: Node, second: Node, digits_written: int = 0) -> bool:
    """True if two expressions are the same number, or the same function of their variables."""
    if max(_functions(first), _functions(second)) > MAX_FUNCTIONS:
        return False
    names = sorted(variables(first) | variables(second))
    if not names:
        return _agree(first, second, {}, DIGITS + digits_written, real=False) is True
    return _at_points(first, second, names, DIGITS + digits_written)


def _functions(node: Node) -> int:
    return (node.kind in _COSTLY) + sum(_functions(argument) for argument in node.args)


def proportional(first: Node, second: Node, *, positive: bool = False) -> bool:
    """True if one expression is a constant, nonzero (or positive) multiple of the other, as in `2x-4` and `x-2`."""
    names = sorted(variables(first) | variables(second))
    if variables(first) != variables(second) or not names:
        return False
    real = not _has_i(first, second)
    ratios: list[Value] = []
    for point in _points(names):
        found = _ratio(first, second, point, real=real)
        if found is None:
            continue
        ratio, context, digits = found
        if isinstance(ratio, Fraction) and (not ratios or isinstance(ratios[0], Fraction)):
            same = not ratios or ratio == ratios[0]
        else:
            difference = context.mpf(1) - _number(context, ratio) / _number(context, (ratios or [ratio])[0])
            same = bool(abs(difference) <= context.mpf(10) ** -digits)
        if not same:
            return False
        ratios.append(ratio)
        if len(ratios) == POINTS:
            return not positive or (_is_real(ratio) and _number(context, ratio).real > 0)
    return False


def _ratio(first: Node, second: Node, point: dict[str, Fraction], *, real: bool) -> tuple[Value, Any, int] | None:
    """The ratio of two values, not zero, with its context and the digits that count; None if it cannot be said."""
    working = 3 * DIGITS
    for _ in range(2):
        evaluation = _Evaluation(point, working, real=real)
        try:
            above, below = evaluation.of(first), evaluation.of(second)
            if above == 0 or below == 0:
                return None
            if isinstance(above, Fraction) and isinstance(below, Fraction):
                return above / below, evaluation.context, DIGITS
            spread = evaluation.spread()
            if 3 * DIGITS + 2 * spread <= working:
                return evaluation.number(above) / evaluation.number(below), evaluation.context, DIGITS + spread
        except (UndefinedError, ArithmeticError):
            return None
        working = 3 * DIGITS + 30 + 3 * spread
        if working > MAX_DIGITS:
            return None
    return None


def _number(context: Any, value: Value) -> Value:
    """A fraction as a number of mpmath."""
    return context.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def real_number(node: Node) -> Value | None:
    """The real value of an expression without variables, for ordering; None if there is none."""
    if variables(node):
        return None
    evaluation = _Evaluation({}, 2 * DIGITS, real=True)
    try:
        return evaluation.number(evaluation.of(node))
    except (UndefinedError, ArithmeticError):
        return None


def _at_points(first: Node, second: Node, names: list[str], digits: int) -> bool:
    complex_too = _has_i(first, second)
    for real in (False,) if complex_too else (True, False):
        agreeing = 0
        for point in _points(names):
            agree = _agree(first, second, point, digits, real=real)
            if agree is False:
                return False
            agreeing += agree is True
            if agreeing == POINTS:
                return True
    return False


def _points(names: Iterable[str]) -> Iterator[dict[str, Fraction]]:
    """Rational points; near and far from zero, first all positive, then of either sign."""
    for index in range(TRIED_POINTS):
        numbers = random.Random(index)  # the same at every comparison
        scale = (1, 4, 30)[index % 3]
        yield {
            name: Fraction(numbers.randint(1, 996), 997) * scale * (numbers.choice((-1, 1)) if index % 4 else 1)
            for name in names
        }


def _agree(first: Node, second: Node, point: dict[str, Fraction], digits: int, *, real: bool) -> bool | None:
    """Whether two expressions have the same value at a point; None if that cannot be said there.

    The first round finds how much precision is needed. What is next to nothing in it shrinks in the second one if it
    is a rounding error, as of `\\sin\\pi`, and is a number like any other if not.
    """
    working = 2 * digits + 30
    for noise in (0, digits // 2):
        evaluation = _Evaluation(point, working, real=real)
        try:
            one, two = evaluation.of(first), evaluation.of(second)
            if isinstance(one, Fraction) and isinstance(two, Fraction):
                return one == two
            one, two = evaluation.number(one), evaluation.number(two)
            spread = evaluation.spread(noise)
            if 2 * digits + 30 + 2 * spread <= working:
                return _close(evaluation, one, two, digits + spread)
        except (UndefinedError, ArithmeticError):
            return None
        working = 2 * digits + 60 + 3 * spread
        if working > MAX_DIGITS:
            return None
    return None


def _close(evaluation: _Evaluation, one: Value, two: Value, digits: int) -> bool:
    """Equal to `digits` digits of the larger one, or both nothing but rounding errors."""
    context = evaluation.context
    largest = max(abs(one), abs(two))
    if largest <= context.ldexp(1, evaluation.largest) * context.mpf(10) ** (digits // 2 - context.dps):
        return True
    return bool(abs(one - two) <= largest * context.mpf(10) ** -digits)


def _has_i(*nodes: Node) -> bool:
    return any((node.kind == "constant" and node.value == "i") or _has_i(*node.args) for node in nodes)


def _is_real(value: Value) -> bool:
    return isinstance(value, Fraction) or not getattr(value, "imag", 0)


@lru_cache(maxsize=8)
def _context(digits: int) -> Any:
    """A context of mpmath of its own, so that nobody's precision is changed."""
    from mpmath import MPContext  # type: ignore[import-untyped]

    context = MPContext()
    context.dps = digits
    return context


class _Evaluation:
    """Values of expressions at one point."""

    def __init__(self, point: dict[str, Fraction], digits: int, *, real: bool) -> None:
        self.point = point
        self.context: Any = _context(digits)
        self.real = real
        self.digits = digits
        self.largest = 0  # the binary exponent of the largest number seen
        self.magnitudes = [0]

    def spread(self, noise: int = 0) -> int:
        """Decimal digits between the largest and the smallest number seen.

        With `noise`, numbers that many digits short of the working precision are passed over: rounding errors.
        """
        floor = self.largest - int((self.digits - noise) / 0.30103) if noise else min(self.magnitudes)
        return int((self.largest - min(size for size in self.magnitudes if size >= floor)) * 0.30103)

    def number(self, value: Value) -> Value:
        """A fraction as a number of mpmath."""
        return _number(self.context, value)

    def of(self, node: Node) -> Value:
        """The value of an expression."""
        value = self._of(node)
        if isinstance(value, Fraction):
            if value:
                self._note(value.numerator.bit_length() - value.denominator.bit_length())
            return value
        context = self.context
        if not context.isfinite(value):
            raise UndefinedError
        if not _is_real(value) and self.real:
            raise UndefinedError
        if value:
            self._note(int(context.mag(value)))
        return value

    def _note(self, magnitude: int) -> None:
        self.largest = max(self.largest, magnitude)
        self.magnitudes.append(magnitude)
        if magnitude > MAX_LOG2:
            raise UndefinedError

    def _of(self, node: Node) -> Value:
        if node.kind == "number":
            return node.value
        if node.kind == "variable":
            if str(node.value) not in self.point:
                raise UndefinedError
            return self.point[str(node.value)]
        if node.kind == "constant":
            return self._constant(str(node.value))
        values = [self.of(argument) for argument in node.args]
        if node.kind == "function":
            return self._function(str(node.value), values)
        return getattr(self, f"_{node.kind}")(values)

    def _constant(self, name: str) -> Value:
        constants = {"pi": self.context.pi, "e": self.context.e}
        return +constants[name] if name in constants else self.context.mpc(0, 1)

    def _add(self, values: list[Value]) -> Value:
        if all(isinstance(value, Fraction) for value in values):
            return sum(values, Fraction(0))
        return sum((self.number(value) for value in values[1:]), self.number(values[0]))

    def _mul(self, values: list[Value]) -> Value:
        if any(isinstance(value, Fraction) and value == 0 for value in values):
            return Fraction(0)
        result: Value = Fraction(1)
        for value in values:
            both = isinstance(result, Fraction) and isinstance(value, Fraction)
            result = self._bounded(result * value) if both else self.number(result) * self.number(value)
        return result

    def _bounded(self, value: Fraction) -> Value:
        if value.numerator.bit_length() + value.denominator.bit_length() > MAX_EXACT_BITS:
            return self.number(value)
        return value

    def _inverse(self, values: list[Value]) -> Value:
        if not values[0]:
            raise UndefinedError
        return 1 / values[0]

    def _power(self, values: list[Value]) -> Value:
        base, exponent = values
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return self._whole_power(base, exponent.numerator)
        if isinstance(exponent, Fraction) and exponent.denominator <= MAX_FACTORIAL and _is_real(base):
            return self._whole_power(self._root_of(base, exponent.denominator), exponent.numerator)
        base, exponent = self.number(base), self.number(exponent)
        if not base:
            raise UndefinedError
        self._affordable(base, exponent)
        return self.context.power(base, exponent)

    def _whole_power(self, base: Value, exponent: int) -> Value:
        if not base and exponent <= 0:
            if exponent == 0:
                return Fraction(1)
            raise UndefinedError
        if isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent) <= MAX_EXACT_BITS:
                return base**exponent
        base = self.number(base)
        self._affordable(base, exponent)
        return base**exponent

    def _affordable(self, base: Value, exponent: Value) -> None:
        magnitude = abs(self.context.mag(base)) + 1 if base else 1
        if abs(exponent) > MAX_LOG2 or magnitude * abs(exponent) > MAX_LOG2:
            raise UndefinedError

    def _root(self, values: list[Value]) -> Value:
        degree, value = values
        if not isinstance(degree, Fraction) or degree.denominator != 1 or not 1 <= degree <= MAX_FACTORIAL:
            return self._power([value, 1 / degree])
        return self._root_of(value, degree.numerator)

    def _root_of(self, value: Value, degree: int) -> Value:
        if isinstance(value, Fraction):
            if value < 0 and degree % 2:
                return -self._root_of(-value, degree)
            exact = _exact_root(value, degree)
            if exact is not None:
                return exact
        value = self.number(value)
        if _is_real(value) and self.context.re(value) < 0 and degree % 2:
            return -self.context.root(-value, degree)
        return self.context.root(value, degree)

    def _factorial(self, values: list[Value]) -> Value:
        value = values[0]
        if isinstance(value, Fraction) and value.denominator == 1:
            if not 0 <= value <= MAX_FACTORIAL:
                raise UndefinedError
            return Fraction(factorial(value.numerator))
        if abs(value) > MAX_FACTORIAL:
            raise UndefinedError
        return self.context.gamma(self.number(value) + 1)

    def _binomial(self, values: list[Value]) -> Value:
        if any(abs(value) > MAX_FACTORIAL for value in values):
            raise UndefinedError
        if all(isinstance(value, Fraction) and value.denominator == 1 and value >= 0 for value in values):
            return Fraction(comb(values[0].numerator, values[1].numerator))
        return self.context.binomial(self.number(values[0]), self.number(values[1]))

    def _abs(self, values: list[Value]) -> Value:
        return abs(values[0])

    def _degrees(self, values: list[Value]) -> Value:
        return self.number(values[0]) * self._constant("pi") / 180

    def _function(self, name: str, values: list[Value]) -> Value:
        if name in {"gcd", "lcm"}:
            return _whole_numbers(name, values)
        if name in {"max", "min"}:
            if not all(_is_real(value) for value in values):
                raise UndefinedError
            exact = all(isinstance(value, Fraction) for value in values)
            choose = max if name == "max" else min
            return choose(values) if exact else choose(self.number(value) for value in values)
        if name in {"floor", "ceil"}:
            return self._rounded(name, values[0])
        return self._elementary(name, values)

    def _rounded(self, name: str, value: Value) -> Value:
        if isinstance(value, Fraction):
            return Fraction(value.__floor__() if name == "floor" else value.__ceil__())
        return self.context.floor(value) if name == "floor" else self.context.ceil(value)

    def _elementary(self, name: str, values: list[Value]) -> Value:
        argument = self.number(values[0])
        context = self.context
        if abs(argument) > MAX_LOG2 and name not in {"ln", "log", "lg"}:
            raise UndefinedError
        if name in {"ln", "log", "lg"}:
            if not argument:
                raise UndefinedError
            base = context.e if name == "ln" else self.number(values[1]) if len(values) > 1 else context.mpf(10)
            return context.ln(argument) if name == "ln" else context.ln(argument) / context.ln(base)
        if name.startswith("arc"):
            return getattr(context, "a" + name[3:])(argument)
        return getattr(context, name)(argument)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    if value < 0:
        return None
    above, below = _whole_root(value.numerator, degree), _whole_root(value.denominator, degree)
    return None if above is None or below is None else Fraction(above, below)


def _whole_root(value: int, degree: int) -> int | None:
    """The whole root of a whole number by Newton's method from above, or None."""
    if value < 2 or degree == 1:
        return value
    if value.bit_length() > MAX_ROOT_BITS:
        return None
    root = isqrt(value) if degree == 2 else 1 << -(-value.bit_length() // degree)
    while degree > 2:
        smaller = ((degree - 1) * root + value // root ** (degree - 1)) // degree
        if smaller >= root:
            break
        root = smaller
    return root if root**degree == value else None


def _whole_numbers(name: str, values: list[Value]) -> Fraction:
    if not all(isinstance(value, Fraction) and value.denominator == 1 for value in values):
        raise UndefinedError
    whole = [value.numerator for value in values]
    return Fraction(gcd(*whole) if name == "gcd" else lcm(*whole))
