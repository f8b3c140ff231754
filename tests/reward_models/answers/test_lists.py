"""When answers side by side are one list."""

import pytest

from reward_models.answers.formulas import Formula
from reward_models.answers.lists import MAX_ITEMS, as_one, connects, last_list


@pytest.mark.parametrize(
    ("gap", "is_list"),
    [
        (", ", True),
        ("; ", True),
        (" and ", True),
        ("$ and $", True),
        ("$ and $a = ", True),
        ("$, or $x_1=", True),
        (r"\quad \text{and} \quad ", True),
        (r" \text{ or } ", True),
        ("$,\n and $", True),
        (r", \theta = ", True),
        ("", False),
        (" ", False),
        (" = ", False),
        ("land", False),
        (",\n\n", False),
        (" or maybe ", False),
        (" and not ", False),
        (", wait, no, ", False),
        (", " + "and " * 20, False),
    ],
)
def test_connects(gap: str, is_list: bool) -> None:
    assert connects(gap) == is_list


def test_a_list_without_end_is_read_from_its_end() -> None:
    text = "5," * 3000
    fives = [Formula("5", start, start + 1) for start in range(0, len(text), 2)]
    assert last_list(text, fives) == fives[-MAX_ITEMS:]
    assert last_list(text, fives[:10]) == fives[:10]


def test_what_is_said_twice_counts_once() -> None:
    assert as_one(["5", "6", "5"]) == "5, 6"
    assert as_one(["5", "5"]) == "5"
