r"""Whether two bare answers are equal, as an ordered list of rules; each says what it decided by.

Text first, then numbers and words, then what stands in a sentence; then the limits; then structures, part by part; and
scalars by their values, or by math-verify where our reader does not read them. Policies that belong to no reader:

- A degree sign, like a percent sign, is a unit or the factor \pi/180, whichever the other side needs.
- An answer with several values equals only a reference with the same values. `\{1,2\}` equals the list `1,2`; a tuple
  equals neither. Values with names of their own equal bare ones in the order of their names alone: `x=1, y=2` is `1,2`
  and `(1,2)`, not `2,1`.
- A set with one element equals the element, unless they are parts of something; a named value equals the value itself,
  and so does what is said to be approximately something: `x \approx 8` is 8. `y = 2x+5` equals `2x+5`. `y` and `f(x)`
  are one name, other names differ.
- Two equations are equal if their sides' differences are proportional; inequalities if by a positive factor.
- Matrices equal in shape and cells; a row is no column, and neither is a tuple. `[[1,2],[3,4]]` is a matrix.
"""

from __future__ import annotations

from fractions import Fraction

from reward_models.answers.expressions import Node, variables
from reward_models.answers.limits import refusal
from reward_models.answers.notation import normalise, visible
from reward_models.answers.numbers import integer_digits
from reward_models.answers.plain_answers import (
    MAX_READ_CHARS,
    Decision,
    decide_by_sentence,
    decide_by_words,
    decide_plainly,
)
from reward_models.answers.real_sets import as_real_set, same_real_set
from reward_models.answers.structures import (
    Combined,
    Matrix,
    Named,
    Relation,
    Scalar,
    Sequence,
    Several,
    Shape,
    read_or_none,
    read_shape,
    split_top,
)
from reward_models.answers.symbolic import readable_by_algebra, same_by_algebra
from reward_models.answers.units import same_unit, split_unit
from reward_models.answers.values import exact_value, proportional, same_value
from reward_models.answers.words import choice_letter, choice_with_content

# Of longer lists each item would be compared with each; they are compared in order.
MAX_UNORDERED = 40
_OTHER_STRUCTURE = Decision(False, "one has a structure that the other has not")
_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}


def same_answer(reference: str, answer: str) -> Decision:
    """Compare two bare answers; symmetric, and true of an answer and itself."""
    reference, answer = visible(reference).strip(), visible(answer).strip()
    if not answer:
        return Decision(False, "the answer is empty")
    if reference == answer:
        return Decision(True, "equal as text")
    integers = integer_digits(reference), integer_digits(answer)
    if integers[0] is not None and integers[1] is not None:
        return Decision(integers[0] == integers[1], "compared as numbers")
    for name, text in (("answer", answer), ("reference", reference)):
        if len(text) > MAX_READ_CHARS:
            return Decision(False, f"the {name} was refused: {len(text)} characters")
    try:
        return _same_notation(normalise(reference), normalise(answer))
    except RecursionError:  # the caller may have used up most of the stack
        return Decision(False, "the answer or the reference was refused: it is nested too deeply")


def _same_notation(first: str, second: str) -> Decision:
    """Compare two answers in the one notation."""
    if not second:
        return Decision(False, "the answer is empty")
    decision = _without_parts(first, second) or decide_by_sentence(first, second)
    if decision is not None:
        return decision
    for name, text in (("answer", second), ("reference", first)):
        refused = refusal(text)
        if refused is not None:
            return Decision(False, f"the {name} was refused: {refused}")
    return _same_shape(read_shape(first), read_shape(second))


def _as_choices(first: str, second: str) -> Decision | None:
    letters = choice_letter(first), choice_letter(second)
    if letters[0] is not None and letters[1] is not None:
        return Decision(letters[0] == letters[1], "compared as choices")
    for one, other in ((first, second), (second, first)):
        content = choice_with_content(one)
        if content is None or choice_with_content(content[1]) is not None:
            continue
        letter = choice_letter(other)
        if letter is not None:
            return Decision(letter == content[0], "compared as choices")
        if choice_with_content(other) is None:
            return Decision(same_answer(other, content[1]).equal, "compared with the content of a choice")
    return None


def _without_parts(first: str, second: str) -> Decision | None:
    """The rules that need no structure; None if none of them applies."""
    return decide_plainly(first, second) or _as_choices(first, second) or decide_by_words(first, second)


def _same_shape(first: Shape, second: Shape) -> Decision:
    """Compare two answers that were taken apart."""
    if isinstance(first, Scalar) and isinstance(second, Scalar):
        return _as_sets(first, second) or same_scalar(first.text, second.text)
    if isinstance(first, (Named, Relation)) and isinstance(second, (Named, Relation)):
        return _same_relations(first, second)
    sets = _as_sets(first, second)
    if sets is not None:
        return sets
    if isinstance(first, Named):
        return _named_against_bare(first, second)
    if isinstance(second, Named):
        return _named_against_bare(second, first)
    if isinstance(first, Matrix) or isinstance(second, Matrix):
        one, two = _as_matrix(first), _as_matrix(second)
        return (
            _OTHER_STRUCTURE if one is None or two is None else Decision(_same_matrix(one, two), "compared as matrices")
        )
    if isinstance(first, (Several, Sequence)) or isinstance(second, (Several, Sequence)):
        return _same_collections(first, second)
    if isinstance(first, Combined) and isinstance(second, Combined) and first.signs == second.signs:
        return Decision(_paired(first.parts, second.parts), "compared as sets")
    return _OTHER_STRUCTURE


def _equal(first: Shape, second: Shape) -> bool:
    """Whether parts of two answers are equal; of parts a set with one element is not the element."""
    if _is_set(first) != _is_set(second) and not (isinstance(first, Relation) or isinstance(second, Relation)):
        return False
    return _same_shape(first, second).equal


def _paired(first: tuple[Shape, ...], second: tuple[Shape, ...]) -> bool:
    return len(first) == len(second) and all(_equal(one, two) for one, two in zip(first, second, strict=True))


def _matched(first: tuple[Shape, ...], second: tuple[Shape, ...]) -> bool:
    """True if each item has a partner of its own; equality is transitive, so that any partner will do."""
    if len(first) != len(second):
        return False
    if len(first) > MAX_UNORDERED:
        return _paired(first, second)
    left = list(second)
    for one in first:
        at = next((index for index, two in enumerate(left) if _equal(one, two)), None)
        if at is None:
            return False
        del left[at]
    return True


def _distinct(items: tuple[Shape, ...]) -> tuple[Shape, ...]:
    if len(items) > MAX_UNORDERED:
        return items
    kept: list[Shape] = []
    for item in items:
        if not any(_equal(item, other) for other in kept):
            kept.append(item)
    return tuple(kept)


def _as_sets(first: Shape, second: Shape) -> Decision | None:
    """Sets of real numbers, if at least one side can be nothing else."""
    sets = as_real_set(first), as_real_set(second)
    if sets[0] is None or sets[1] is None or not (sets[0].sure or sets[1].sure):
        return None
    return Decision(same_real_set(sets[0], sets[1]), "compared as sets of real numbers")


def _same_collections(first: Shape, second: Shape) -> Decision:
    if isinstance(first, Sequence) and isinstance(second, Sequence):
        return Decision(_same_sequences(first, second), "compared item by item")
    if isinstance(first, Several) and isinstance(second, Several):
        return Decision(_same_lists(first, second), "compared item by item")
    one, other = (first, second) if isinstance(first, (Several, Sequence)) else (second, first)
    if isinstance(one, Several) and isinstance(other, Sequence):
        one, other = other, one
    if isinstance(one, Sequence) and isinstance(other, Several):
        if _is_set(one):
            return Decision(_matched(_distinct(one.items), _distinct(other.items)), "compared as sets")
        return Decision(_named_in_order(other, one.items), "compared item by item")
    if isinstance(one, Sequence) and _is_set(one) and len(_distinct(one.items)) == 1:
        return _same_shape(one.items[0], other)
    if isinstance(one, Several) and one.joint == "±":
        values = _distinct(one.items)
        return Decision(len(values) == 1 and _equal(values[0], other), "compared item by item")
    if (
        isinstance(one, Several)
        and isinstance(other, Scalar)
        and integer_digits(other.text) is not None
        and "," in other.text
    ):
        parts, _ = split_top(f"{other.text}, ", frozenset({","}))
        items = tuple(Scalar(part) for part in parts if part)
        return Decision(_matched(one.items, items), "compared item by item")
    return _OTHER_STRUCTURE


def _is_set(shape: Shape) -> bool:
    return isinstance(shape, Sequence) and (shape.opening, shape.closing) == ("\\{", "\\}")


def _same_sequences(first: Sequence, second: Sequence) -> bool:
    for one, other in ((first, second), (second, first)):
        if _is_set(one) and not _is_set(other) and len(_distinct(one.items)) == 1:
            return _equal(one.items[0], other)
    if (first.opening, first.closing) != (second.opening, second.closing):
        return False
    if _is_set(first):
        return _matched(_distinct(first.items), _distinct(second.items))
    if first.opening == ":":
        return len(first.items) == len(second.items) and _same_ratio(first.items, second.items)
    return _paired(first.items, second.items)


def _same_ratio(first: tuple[Shape, ...], second: tuple[Shape, ...]) -> bool:
    nodes = [
        [read_or_none(item.text) if isinstance(item, Scalar) else None for item in items] for items in (first, second)
    ]
    known = [[node for node in row if node is not None] for row in nodes]
    if len(known[0]) != len(first) or len(known[1]) != len(second):
        return False
    one, two = known
    return all(
        same_value(Node("mul", (a, two[0])), Node("mul", (b, one[0]))) for a, b in zip(one[1:], two[1:], strict=True)
    )


def _same_lists(first: Several, second: Several) -> bool:
    for named, bare in ((first, second), (second, first)):
        if _has_names(named) and not any(isinstance(item, (Named, Relation)) for item in bare.items):
            return _named_in_order(named, bare.items)
    return _matched(first.items, second.items)


def _has_names(shape: Several) -> bool:
    """True if several names stand in a list: its values are told apart by them."""
    return len({item.name for item in shape.items if isinstance(item, Named)}) > 1


def _named_in_order(named: Several, bare: tuple[Shape, ...]) -> bool:
    """Values with names of their own, in the order of the names, against the same values without names."""
    names = [item.name for item in named.items if isinstance(item, Named)]
    if len(names) != len(named.items) or len(set(names)) != len(names) or names != sorted(names):
        return False
    if any(isinstance(item, (Named, Relation)) for item in bare):
        return False
    return _paired(tuple(item.value for item in named.items if isinstance(item, Named)), bare)


def _as_matrix(shape: Shape) -> Matrix | None:
    """A matrix, or a list of lists, which is how plain text writes one."""
    if not isinstance(shape, Sequence):
        return shape if isinstance(shape, Matrix) else None
    rows = [item.items for item in shape.items if isinstance(item, Sequence) and item.opening == "["]
    return Matrix("p", tuple(rows)) if shape.opening == "[" and len(rows) == len(shape.items) > 0 else None


def _same_matrix(first: Matrix, second: Matrix) -> bool:
    return (
        first.kind == second.kind
        and len(first.rows) == len(second.rows)
        and all(_paired(one, two) for one, two in zip(first.rows, second.rows, strict=True))
    )


def _named_against_bare(named: Named, bare: Shape) -> Decision:
    value = named.value
    if isinstance(bare, (Combined, Matrix)) and not isinstance(value, type(bare)):
        return _OTHER_STRUCTURE
    if isinstance(bare, Several) and _names_of_tuple(named, bare):
        return Decision(_equal(_tuple_as_list(named), bare), "compared item by item")
    if isinstance(value, Scalar):
        node = read_or_none(value.text)
        if node is not None and named.name in variables(node):
            return Decision(False, "an equation is no value")
    return _same_shape(value, bare)


def _names_of_tuple(named: Named, bare: Several) -> bool:
    return (
        "," in named.name and isinstance(named.value, Sequence) and any(isinstance(item, Named) for item in bare.items)
    )


def _tuple_as_list(named: Named) -> Shape:
    names = named.name.split(",")
    items = named.value.items if isinstance(named.value, Sequence) else ()
    if len(items) != len(names):
        return named.value
    return Several(tuple(Named(name, item, None) for name, item in zip(names, items, strict=True)), "and")


def _same_relations(first: Named | Relation, second: Named | Relation) -> Decision:
    rule = "compared as relations"
    if isinstance(first, Named) and isinstance(second, Named) and _same_named(first, second):
        return Decision(True, rule)
    sets = _as_sets(first, second)
    if sets is not None:
        return sets
    one = first.equation if isinstance(first, Named) else first
    two = second.equation if isinstance(second, Named) else second
    return Decision(one is not None and two is not None and _same_statements(one, two), rule)


def _same_named(first: Named, second: Named) -> bool:
    if first.name and second.name and first.name != second.name and not _are_one_function(first.name, second.name):
        return False
    return _same_shape(first.value, second.value).equal


def _are_one_function(first: str, second: str) -> bool:
    one, other = (first, second) if first == "y" else (second, first)
    return one == "y" and other.endswith("(x)")


def _same_statements(first: Relation, second: Relation) -> bool:
    """Chains of relations: forwards or backwards member by member, or one relation as a multiple of the other."""
    if len(first.signs) != len(second.signs):
        return False
    backwards = Relation(second.members[::-1], tuple(_FLIPPED.get(sign, sign) for sign in second.signs[::-1]))
    for other in (second, backwards):
        if first.signs == other.signs and (_same_members(first, other) or _multiple(first, other)):
            return True
    return False


def _same_members(first: Relation, second: Relation) -> bool:
    return all(_equal(read_shape(one), read_shape(two)) for one, two in zip(first.members, second.members, strict=True))


def _multiple(first: Relation, second: Relation) -> bool:
    if len(first.signs) != 1 or first.signs[0] not in {"=", "≠", *_FLIPPED}:
        return False
    one, two = _difference(first), _difference(second)
    if one is None or two is None:
        return False
    return proportional(one, two, positive=first.signs[0] in _FLIPPED)


def _difference(relation: Relation) -> Node | None:
    sides = [read_or_none(member) for member in relation.members]
    if sides[0] is None or sides[1] is None:
        return None
    return Node("add", (sides[0], Node("mul", (Node("number", (), Fraction(-1)), sides[1]))))


def same_scalar(first: str, second: str) -> Decision:
    """Compare two values without parts."""
    decision = _without_parts(first, second)
    if decision is not None:
        return decision
    whole = read_or_none(first), read_or_none(second)
    if whole[0] is not None and whole[1] is not None and same_value(whole[0], whole[1], _digits(first + second)):
        return Decision(True, "compared by value")
    one, two = split_unit(first), split_unit(second)
    if not same_unit(one.unit, two.unit):
        return Decision(False, "the units differ")
    nodes = read_or_none(one.amount), read_or_none(two.amount)
    if nodes[0] is not None and nodes[1] is not None:
        return Decision(_same_nodes(first, second, nodes[0], nodes[1], one.factor / two.factor), "compared by value")
    if not (readable_by_algebra(first) and readable_by_algebra(second)):
        return Decision(False, "compared as text")
    return Decision(same_by_algebra(first, second), "compared by algebra")


def _same_nodes(first: str, second: str, one: Node, two: Node, factor: Fraction) -> bool:
    digits = _digits(first + second)
    scaled = one if factor == 1 else Node("mul", (one, Node("number", (), factor)))
    if same_value(scaled, two, digits):
        return True
    return _with_sign(first, one, two, digits) or _with_sign(second, two, one, digits)


def _with_sign(text: str, value: Node, other: Node, digits: int) -> bool:
    """Whether the other reading of a sign at the end makes values equal: a degree as a factor, a percent as a unit."""
    if text.rstrip().endswith("\\degree") and not variables(value) and exact_value(other) is None:
        return same_value(Node("degrees", (value,)), other, digits)
    if text.rstrip().endswith("%"):
        return same_value(Node("mul", (value, Node("number", (), Fraction(100)))), other, digits)
    return False


def _digits(text: str) -> int:
    return sum(character.isdigit() for character in text)
