"""One number with what may stand beside it: a name in front, a currency sign, a unit."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from reward_models.answers.notation import normalise, visible
from reward_models.answers.units import same_unit, split_unit

# No number with its unit is longer; only a bare integer may be.
MAX_QUANTITY_CHARS = 1000

_NAME = re.compile(r"[A-Za-z](?:_\s*\{?[A-Za-z0-9]\}?)?\s*=\s*")


class Quantity(NamedTuple):
    """The text of the number in one notation, its unit ("" for none), and a factor such as a million."""

    number: str
    unit: str = ""
    factor: Fraction = Fraction(1)


def read_quantity(text: str) -> Quantity:
    r"""Part `x = \$1,024.50`, `7 \text{ cm}`, `-10^\circ` or a bare number; other texts come back as the number."""
    bare = visible(text).strip()
    if len(bare) > MAX_QUANTITY_CHARS:
        return Quantity(bare)
    bare = normalise(bare)
    named = _NAME.match(bare)
    amount, unit, factor = split_unit(bare[named.end() :] if named else bare)
    return Quantity(amount.strip(), unit, factor)


def same_kind(first: Quantity, second: Quantity) -> bool:
    """False where both have a unit, and not the same one; nothing is converted."""
    return same_unit(first.unit, second.unit)
