"""When a text is nothing but an answer."""

import pytest

from reward_models.answers.whole import whole_answer


@pytest.mark.parametrize(
    ("text", "is_answer"),
    [
        ("10\\sqrt3 + \\sqrt{4}", True),
        ("7,425,000", True),
        ("1, 2 and 3", True),
        ("12 cups", True),
        ("5 million people", True),
        ("$9 500", True),
        ("08:34 \\text{P.M.}", True),
        ("\\begin{pmatrix} 1 \\\\\n 0.5 \\end{pmatrix}", True),
        ("\\text{Evelyn}", True),
        ("Tuesday", True),
        ("We get 5 and then 12", False),
        ("12 cups are what she needs for it", False),
        ("x = 5\ny = 6", False),
        ("$x$", False),
        ("1+" * 150 + "1", False),
        ("a sentence that goes on for quite a while and says nothing at all", False),
        ("", False),
    ],
)
def test_whole_answer(text: str, is_answer: bool) -> None:
    assert whole_answer(text) == (text if is_answer else None)


def test_a_whole_answer_has_no_emphasis_and_no_end_of_turn() -> None:
    assert whole_answer("**72**\n") == "72"
    assert whole_answer("**72** total") == "72 total"
    assert whole_answer("2**3") == "2**3"
    assert whole_answer("### 72") == "72"
    assert whole_answer("`72`<|im_end|></s>\n") == "72"
