"""Where formulas begin and end."""

import pytest
from growth import growth

from reward_models.answers.formulas import formula_at, formulas


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("so $x$ and $y=2$", ["x", "y=2"]),
        ("$$a\nb$$ then \\(c\\) and \\[ d \\]", ["a\nb", "c", "d"]),
        ("$ 5 $", ["5"]),
        ("$5$, $.5$", ["5", ".5"]),
        (r"$\$16,000$", [r"\$16,000"]),
        (r"\[ x \\[2pt] y \]", [r"x \\[2pt] y"]),
        (r"\begin{align*} a &= b\\[2pt] &= c \end{align*}", ["c"]),
        (r"\begin{equation} x = 5 \\ \end{equation}", ["x = 5"]),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", []),
        # Money
        ("$5 + $3 = $8", []),
        ("it costs $12.50", []),
        ("it costs $5. So $x$", ["x"]),
        ("he earned $480-$120=$360 and $7", []),
        (r"\$5 and \$6", []),
        # Never closed
        ("$x", []),
        (r"\(x \[y", []),
        (r"\begin{align} x", []),
        ("", []),
    ],
)
def test_table(text: str, contents: list[str]) -> None:
    found = list(formulas(text))
    assert [formula.content for formula in found] == contents
    assert all(formula_at(text, formula.start) == formula for formula in found)


@pytest.mark.parametrize("unit", ["$", "$5 ", "$5 $", "$$a", "\\(", "\\[a", "\\$", "\\begin{align}x\\end{", "\\\\["])
def test_time_grows_with_the_text(unit: str) -> None:
    assert growth(lambda text: list(formulas(text)), unit) < 30
