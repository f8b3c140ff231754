r"""A reader of scalar expressions: LaTeX, and the plain text that models write instead.

It evaluates nothing and imports no algebra. Conventions:

- Letters are variables, told apart by case and subscript (`x1` is `x_1`); `e`, `i` and `\pi` are the constants. A run
  of up to three letters is their product; a longer one is a word, which is no expression, unless it names a function
  or a Greek letter.
- Multiplication without a sign binds like one with a sign: `1/2x` is `x/2`. Two bare numbers side by side are nothing.
- An exponent, and what stands under a root, takes a whole number without braces (`2^10`); `\frac12` takes digits.
- A whole number directly before a proper fraction of whole numbers is a mixed number.
- A function without brackets takes the factors up to the next sign or function: `\sin 2x \cos y`.
- `\log` is to base ten, `\ln` to base e.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from reward_models.errors import VerifierError

# Brackets and operators nest at most so deep, so that neither reading nor evaluating exhausts the stack.
MAX_DEPTH = 40
# More signs in a row behind an operand are no answer: `5%%%`.
MAX_POSTFIX = 3

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+|\.(?![0-9]))?(?:[eE][+-]?[0-9]{1,3}(?![0-9.]))?"
    r"|\.[0-9]+)|(?P<text>\\text\s*\{[^{}]*\})|(?P<command>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]+)|(?P<sign>\*\*|\S))"
)
_NAMED_FUNCTIONS_TEXT = "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh ln log lg exp"
_NAMED_FUNCTIONS = frozenset(_NAMED_FUNCTIONS_TEXT.split())
_WORD_FUNCTIONS = {
    **{name: name for name in _NAMED_FUNCTIONS},
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "sqrt": "sqrt", "abs": "abs", "floor": "floor",
    "ceil": "ceil", "gcd": "gcd", "lcm": "lcm", "max": "max", "min": "min", "cbrt": "cbrt", "binom": "binom",
}  # fmt: skip
_LETTERS_TEXT = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega Gamma "
    "Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar"
)
_LETTERS = frozenset(_LETTERS_TEXT.split())
_PRODUCT_SIGNS = frozenset({"*", "\\cdot", "\\times", "/", "\\div", ":"})
_CLOSING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
_LONGEST_PRODUCT_OF_LETTERS = 3


class UnreadableError(VerifierError):
    """A text is no expression that this reader knows."""


class Node(NamedTuple):
    """One operation: its name, its arguments, and the value of a number or the name of a variable or function."""

    kind: str
    args: tuple[Node, ...] = ()
    value: Fraction | str = ""


class _Token(NamedTuple):
    kind: str
    text: str
    loose: bool  # white space before it


def read_expression(text: str) -> Node:
    """Read a normalised text as one scalar expression.

    Raises:
        UnreadableError: it is none.
    """
    reader = _Reader(_tokens(text))
    node = reader.sum()
    reader.expect_end()
    return node


def variables(node: Node) -> frozenset[str]:
    """The names of the variables of an expression."""
    if node.kind == "variable":
        return frozenset({str(node.value)})
    return frozenset().union(*(variables(argument) for argument in node.args))


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise UnreadableError(f"no token at {position}")
        kind = str(found.lastgroup)
        tokens.append(_Token(kind, found[kind], found.start(kind) > position))
        position = found.end()
    return tokens


def _number(value: Fraction | int) -> Node:
    return Node("number", (), Fraction(value))


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.open_bars = 0

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].text if self.at + ahead < len(self.tokens) else ""

    def kind(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].kind if self.at + ahead < len(self.tokens) else "end"

    def take(self) -> _Token:
        if self.at >= len(self.tokens):
            raise UnreadableError("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, text: str) -> None:
        found = self.take().text
        if found != text:
            raise UnreadableError(f"{found!r} where {text!r} belongs")

    def expect_end(self) -> None:
        if self.at < len(self.tokens):
            raise UnreadableError(f"{self.peek()!r} is left over")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("it is nested too deeply")

    def sum(self) -> Node:
        self.deeper()
        terms = [self.signed_product()]
        while self.peek() in {"+", "-"}:
            terms.append(self.signed_product())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def signed_product(self) -> Node:
        negative = False
        while self.peek() in {"+", "-"}:
            negative ^= self.take().text == "-"
        product = self.product()
        return Node("mul", (_number(-1), product)) if negative else product

    def product(self) -> Node:
        factors = [self.power()]
        while True:
            sign = self.peek()
            if sign in _PRODUCT_SIGNS:
                self.take()
                factor = self.signed_power()
                factors.append(Node("inverse", (factor,)) if sign in {"/", "\\div", ":"} else factor)
            elif self._starts_factor():
                if self.kind() == factors[-1].kind == "number":
                    raise UnreadableError("two numbers side by side")
                factors.append(self.power())
            else:
                return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))

    def signed_power(self) -> Node:
        negative = False
        while self.peek() in {"+", "-"}:
            negative ^= self.take().text == "-"
        power = self.power()
        return Node("mul", (_number(-1), power)) if negative else power

    def _starts_factor(self) -> bool:
        kind, text = self.kind(), self.peek()
        if kind in {"number", "word"}:
            return True
        if kind == "text":
            return _is_function_text(text)
        if kind == "command":
            return text[1:] in _LETTERS or text[1:] in _WORD_FUNCTIONS or text in _OPENING_COMMANDS
        return text in {"(", "[", "{"} or (text == "|" and not self.open_bars)

    def power(self) -> Node:
        depth = self.depth
        self.deeper()
        base = self.postfix(self.atom())
        while self.peek() in {"^", "**"}:
            self.take()
            self.deeper()
            base = self.postfix(Node("power", (base, self.exponent())))
        self.depth = depth
        return base

    def exponent(self) -> Node:
        """`2^10`, `2^{10}`, `2^-1`; of `a^b^c` the exponent of a is `b^c`."""
        negative = self.peek() == "-"
        if negative:
            self.take()
        exponent = self.atom(bare=True)
        if self.peek() in {"^", "**"}:
            self.take()
            self.deeper()
            exponent = Node("power", (exponent, self.exponent()))
        return Node("mul", (_number(-1), exponent)) if negative else exponent

    def postfix(self, node: Node) -> Node:
        for _ in range(MAX_POSTFIX):
            if self.peek() == "!":
                node = Node("factorial", (node,))
            elif self.peek() == "%":
                node = Node("mul", (node, _number(Fraction(1, 100))))
            elif self.peek() == "\\degree":
                node = Node("degrees", (node,))
            else:
                return node
            self.take()
        return node

    def atom(self, *, bare: bool = False) -> Node:
        """One operand; `bare` ends a run of letters at its first one and reads no mixed number."""
        token = self.take()
        if token.kind == "number":
            return self.number(token.text, bare=bare)
        if token.kind == "word":
            return self.word(token.text)
        if token.kind == "text":
            if not _is_function_text(token.text):
                raise UnreadableError("text inside an expression")
            return self.function(token.text[token.text.index("{") + 1 : -1].strip())
        if token.kind == "command":
            self.deeper()
            node = self.command(token.text)
            self.depth -= 1
            return node
        if token.text in _CLOSING:
            return self.bracket(token.text)
        if token.text == "|":
            return self.absolute()
        raise UnreadableError(f"{token.text!r} is no operand")

    def number(self, text: str, *, bare: bool) -> Node:
        value = Fraction(text.replace(",", "").rstrip("."))
        if bare or not text.isdigit():
            return _number(value)
        part = self._proper_fraction()
        return _number(value if part is None else value + part)

    def _proper_fraction(self) -> Fraction | None:
        """The fraction of a mixed number, if one follows directly; takes it."""
        start = self.at
        if self.peek() == "\\frac":
            self.take()
            above, below = self._whole_number(of_command=True), self._whole_number(of_command=True)
        elif self.kind() == self.kind(2) == "number" and self.peek(1) == "/" and self.tokens[self.at].loose:
            above, _, below = self._whole_number(), self.take(), self._whole_number()
        else:
            return None
        if 0 < above < below and self.peek() not in {"^", "**"}:
            return Fraction(above, below)
        self.at = start
        return None

    def _whole_number(self, *, of_command: bool = False) -> int:
        r"""Take a number in braces or without, of which a command takes one digit; 0 if there is none."""
        braces = self.peek() == "{"
        self.at += braces
        if of_command and not braces:
            self._part_digits()
        text = self.peek()
        if self.kind() != "number" or not text.isdigit() or (braces and self.peek(1) != "}"):
            return 0
        self.at += 1 + braces
        return int(text)

    def word(self, text: str) -> Node:
        if text in _WORD_FUNCTIONS and (len(text) > 2 or text in {"ln", "lg"}):
            return self.function(_WORD_FUNCTIONS[text])
        if text == "pi":
            return Node("constant", (), "pi")
        if text in _LETTERS and len(text) > 2:
            return self.name(text)
        if len(text) > _LONGEST_PRODUCT_OF_LETTERS:
            raise UnreadableError("a word")
        if len(text) > 1:  # the rest of the run follows as factors of its own, so that `ab^2` squares b alone
            self.at -= 1
            letters = [_Token("word", letter, False) for letter in text]
            self.tokens[self.at : self.at + 1] = letters
            self.take()
        return self.name(text[0])

    def name(self, letter: str) -> Node:
        """A variable with its subscript and primes, or a constant."""
        label = letter
        if self.peek() == "_":
            self.take()
            label += "_" + self.subscript()
        elif self.kind() == "number" and not self.tokens[self.at].loose and self.peek().isdigit():
            label += "_" + self.take().text  # `x1` is written for `x_1`
        while self.peek() == "'":
            label += self.take().text
        if label in {"e", "i"}:
            return Node("constant", (), label)
        return Node("variable", (), label)

    def subscript(self) -> str:
        if self.peek() != "{":
            return self.take().text
        self.take()
        parts = []
        while self.peek() not in {"}", ""}:
            token = self.take()
            if token.text == "{":
                raise UnreadableError("a subscript with braces")
            parts.append(token.text)
        self.expect("}")
        return "".join(parts)

    def bracket(self, opening: str) -> Node:
        inner = self.sum()
        self.expect(_CLOSING[opening])
        return inner

    def absolute(self) -> Node:
        self.open_bars += 1
        inner = self.sum()
        self.expect("|")
        self.open_bars -= 1
        return Node("abs", (inner,))

    def argument(self, *, whole_number: bool = False) -> Node:
        r"""The argument of a command: a group, a command, a letter, or of `\frac` one digit."""
        if self.peek() in {"{", "("} or self.kind() != "number":
            return self.atom(bare=True)
        if not whole_number:
            self._part_digits()
            if len(self.peek()) > 1:
                raise UnreadableError("a number without braces")
        return self.atom(bare=True)

    def _part_digits(self) -> None:
        if self.kind() == "number" and self.peek().isdigit():
            self.tokens[self.at : self.at + 1] = [_Token("number", digit, False) for digit in self.peek()]

    def command(self, text: str) -> Node:
        name = text[1:]
        if name == "frac":
            above = self.argument()
            return Node("mul", (above, Node("inverse", (self.argument(),))))
        if name == "pi":
            return Node("constant", (), "pi")
        if name in _WORD_FUNCTIONS:
            return self.function(name)
        if name in _LETTERS:
            return self.name(name)
        if name in {"lfloor", "lceil"}:
            inner = self.sum()
            self.expect("\\r" + name[1:])
            return Node("function", (inner,), name[1:])
        raise UnreadableError(f"the command {text}")

    def function(self, name: str) -> Node:
        self.deeper()
        node = self._function(name)
        self.depth -= 1
        return node

    def _function(self, name: str) -> Node:
        if name == "sqrt":
            return self.root()
        if name == "cbrt":
            return Node("root", (_number(3), self.argument(whole_number=True)))
        if name == "binom":
            return Node("binomial", (self.argument(), self.argument()))
        if name in {"gcd", "lcm", "max", "min"}:
            return Node("function", tuple(self.arguments()), name)
        if name in {"abs", "floor", "ceil"}:
            if self.peek() != "(":
                raise UnreadableError(f"{name} without brackets")
            return Node("abs" if name == "abs" else "function", (self.atom(),), name)
        base = self._log_base() if name == "log" else None
        exponent = self._function_exponent()
        if exponent is not None and exponent.value == Fraction(-1) and name in _NAMED_FUNCTIONS - {"ln", "log", "exp"}:
            name, exponent = "arc" + name, None
        argument = self.function_argument()
        node = Node("function", (argument,) if base is None else (argument, base), name)
        return node if exponent is None else Node("power", (node, exponent))

    def root(self) -> Node:
        degree = _number(2)
        if self.peek() == "[":
            self.take()
            degree = self.bracket("[")
        return Node("root", (degree, self.argument(whole_number=True)))

    def arguments(self) -> list[Node]:
        self.expect("(")
        found = [self.sum()]
        while self.peek() == ",":
            self.take()
            found.append(self.sum())
        self.expect(")")
        return found

    def _log_base(self) -> Node | None:
        if self.peek() != "_":
            return None
        self.take()
        return self.argument()

    def _function_exponent(self) -> Node | None:
        if self.peek() not in {"^", "**"}:
            return None
        self.take()
        exponent = self.exponent()
        if exponent.kind == "mul" and exponent.args == (_number(-1), _number(1)):
            return _number(-1)
        return exponent

    def function_argument(self) -> Node:
        if self.peek() in {"(", "{", "["}:
            return self.atom()
        factors = [self.power()]
        while self._starts_factor() and not self._starts_function() and self.peek() not in {"(", "["}:
            if self.kind() == factors[-1].kind == "number":
                raise UnreadableError("two numbers side by side")
            factors.append(self.power())
        return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))

    def _starts_function(self) -> bool:
        return self.kind() == "text" or (self.peek().lstrip("\\") in _WORD_FUNCTIONS and self.peek() != "\\sqrt")


_OPENING_COMMANDS = frozenset({"\\frac", "\\sqrt", "\\pi", "\\binom", "\\lfloor", "\\lceil", "\\{"})


def _is_function_text(text: str) -> bool:
    return text[text.index("{") + 1 : -1].strip() in _WORD_FUNCTIONS
