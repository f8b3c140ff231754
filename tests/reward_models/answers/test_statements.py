"""What counts as a stated answer, and what is stated."""

import pytest
from growth import growth

from reward_models.answers.statements import behind_denials, stated_answer

SENTENCES = [
    ("The answer is 12. I hope it is correct.", "12"),
    ("The final answer is $(1,2)$. I hope it is correct.", "(1,2)"),
    ("the answer is: 3.5", "3.5"),
    ("the answer to the problem is 5", "5"),
    ("The correct answer is (B)", "(B)"),
    ("The answer is thus $5$.", "5"),
    ("So the answer: 5", "5"),
    ("answer = 5", "5"),
    ("The answer is\n\\[ 5 \\]", "5"),
    ("The final answer is:\n\n$$5$$", "5"),
    ("The answer is **42**.", "42"),
    ("The answer is `5`", "5"),
    ("The answer is -5.", "-5"),
    ("The answer is 4:30 p.m.", "4:30 p.m"),
    ("The answer is 42, because 6*7=42.", "42"),
    ("The answer is 42 since 6*7=42.", "42"),
    ("The answer is $42$, which is 6*7", "42"),
    ("The answer is $x = 5$, so we are done", "x = 5"),
    ("The answer is no solution.", "no solution"),
    ("The answer is 2**3", "2**3"),
    ('The answer is 54,000 square meters.",\n', "54,000 square meters"),
    ("the answer is 42</s></s>", "42"),
    ("the answer is therefore, 5", "5"),
    ("the answer is found to be 5:", "5"),
    ("Final Answer: The final answer is $X$. I hope it is correct.", "X"),
    # The last one counts, and a denied one does not
    ("The answer is 5. No, the answer is 6.", "6"),
    ("The answer is 5? No, the answer is 6.", "6"),
    ("The answer is 5. The answer is not 3.", "5"),
    ("Answer: 5\nWait, the answer is 6.", "6"),
]
LINES = [
    ("work\nAnswer: 12\n", "12"),
    ("Ans: 5", "5"),
    ("Answer: 5%", "5%"),
    ("**Final Answer**: $\\frac12$", "\\frac12"),
    ("**Final Answer:** 42", "42"),
    ("**Final Answer**\n\n42", "42"),
    ("### Answer\n$5$", "5"),
    ("**Answer: 42**", "42"),
    ("Answer: **42** apples because of that", "42"),
    ("Answer: **x = 3, y = 4**", "x = 3, y = 4"),
    ("Answer $5$", "5"),
    ("\\text{Answer: } 5", "5"),
    ("Answer:\n42", "42"),
    ("Answer: $5 + $3 = $8", "$5 + $3 = $8"),
    ("A: 5 apples", "5 apples"),
    ("A: 5*3 = <<5*3=15>>15", "5*3 = 15"),
    ("Answer: \n```\n42\n```", "42"),
    ("**Final Answer: $42$ cm**", "42"),
    ("A: The answer is 120.", "120"),
    ("work\n#### 42\n", "42"),
    ("#### $1,200", "$1,200"),
    ("#### 18 dollars", "18 dollars"),
    ("#### **18**", "18"),
    ("#### \\frac{5}{6}", "\\frac{5}{6}"),
    ("#### $\\frac{5}{6}$", "\\frac{5}{6}"),
    ("#### 18\r\n\r\nBye, 2", "18"),
    ("#### x = 18", "x = 18"),
    ("He has 10. #### 18", "18"),
    ("#### 18\n#### 20", "20"),
    ("#### 18\n\nLet me know if you have 2 more questions!", "18"),
    ("#### 18\n\nThe answer is 18 dollars.", "18 dollars"),
    ("(So the answer is 12)", "12"),
    ("{reason: 3+9, answer: 12}", "12"),
    ("The answer is [0, 3).", "[0, 3)"),
    ("The answer is ]0, 3[ or ]0, 3]", "]0, 3[ or ]0, 3]"),
    ("<think>x</think><answer> 4 </answer>", "4"),
    ("<answer>The answer is $4$.</answer> The answer is 5.", "4"),
]
# Nobody is paid for naming two answers, or for an answer that is cut out of a larger one.
WHOLE = [
    ("The answer is $5$ or maybe $6$", "$5$ or maybe $6$"),
    ("The answer is 5 or maybe 6.", "5 or maybe 6"),
    ("The answer is either 5 or 6", "either 5 or 6"),
    ("The answer is **5** or **6**", "5 or 6"),
    ("The answer is $5$ and $6$.", "5, 6"),
    ("The answer is $1$, $2$ and $3$.", "1, 2, 3"),
    ("The answer is $5$ (or $6$).", "$5$ (or $6$)"),
    ("The answer is $5$, alternatively $6$.", "$5$, alternatively $6$"),
    ("The answer is $5$ million.", "$5$ million"),
    ("The answer is $5$ + $3$", "$5$ + $3$"),
    ("The answer is $3$\\%", "$3$\\%"),
    ("The answer is $3$ $\\frac{1}{2}$", "$3$ $\\frac{1}{2}$"),
    ("The answer is about 5", "about 5"),
]
NOTHING = [
    "the answer is not 3, I have no idea",
    "The answer isn't 3",
    "A: The answer is not 120.",
    "Answer: not 5",
    "The answer is unknown to me; 5 is near",
    "The answer is different from $5$",
    "The answer\n\n42 words below",
    "If the answer is 5, we win",
    "I guess the answer is 8",
    "I don't think the answer is 5",
    "The answer is 5?",
    "Is the answer $5$?",
    "The answer is $5$?",
    "The answer, 5, is right",
    "An answer is hard to find; I get 12",
    "There is no answer = 5",
    "I guess 8",
    "Here is my answer:\n\nFirst let x be the number of apples in the basket, and then let y be 5 times that number.",
    "A: 5\nB: 6\nC: 7",
    "a: 5",
    "#### 3\nis a heading",
    "#### Step 4",
    "#### 1. First we add",
    "#### 1\n\nWe add.\n\n#### 2\n\nWe subtract.",
    "The answer can't be 5",
    "The answer does not equal 5",
    "<answer>42",
    "```python\nanswer = 5\n```",
    "```python\nanswer = 5\n",
    "final_answer = 5",
    "",
]


@pytest.mark.parametrize(("text", "answer"), SENTENCES + LINES + WHOLE)
def test_statements(text: str, answer: str) -> None:
    stated = stated_answer(text)
    assert stated is not None
    assert stated[0] == answer


@pytest.mark.parametrize("text", NOTHING)
def test_no_statement(text: str) -> None:
    assert stated_answer(text) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("The answer is not 5. So 7.", " So 7."),
        ("The answer isn't 5", ""),
        ("I don't think the answer is 5.\nIt is 7.", "\nIt is 7."),
        ("We know the answer cannot be 5: 7 is left\n8", "8"),
        ("The answer is not 5. The answer is never 6. 7", " 7"),
        ("It is not the case that 3 = 5. The answer: 7", "It is not the case that 3 = 5. The answer: 7"),
        ("The answer is not 5 but 7.", " 7."),
        ("The answer is not only 5 but also 7.", ""),
        ("I guess the answer is 5", "I guess the answer is 5"),
        ("not 5 but 7", "not 5 but 7"),
    ],
)
def test_what_stands_behind_a_denied_answer(text: str, rest: str) -> None:
    assert behind_denials(text).lstrip("\n") == rest.lstrip("\n")


@pytest.mark.parametrize(
    "unit",
    [
        "answer is ",
        "Answer: ",
        "answer is not 3. ",
        "answer to ",
        "A: ",
        "A:\n",
        "<answer>",
        "</answer>",
        "\n#### 5",
        "#### 5\n\n",
        "answer isn't ",
        "answer is $",
    ],
)
def test_time_grows_with_the_text(unit: str) -> None:
    assert growth(lambda text: (stated_answer(text), behind_denials(text)), unit) < 30
