"""Answer fields in JSON, and in what is meant to be JSON."""

import json

import pytest
from growth import growth
from hypothesis import given
from hypothesis import strategies as st

from reward_models.answers.json_field import AnswerField, json_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"reasoning": "I had 5", "answer": "12"}', "12"),
        ('{"answer": "12"} better: {"answer": "13"}', "13"),
        ('{"final_answer": 12.50, "x": 1}', "12.50"),
        ('{"Final Answer": 3}', "3"),
        ('{"finalAnswer":"3"}', "3"),
        ('{"answers": 3, "the answer": 4}', None),
        (r'{"answer": "\\frac{1}{2}"}', r"\frac{1}{2}"),
        (r'{"answer": "\frac{1}{2}"}', r"\frac{1}{2}"),
        ('{"answer": "two\nlines \\"quoted\\""}', 'two\nlines "quoted"'),
        (r'{"answer": "\"$16\""}', "$16"),
        ('{"answer": ""}', ""),
        # Values without quotes
        ('{"answer": 1,234}', "1,234"),
        ('{"answer": 1, "x": 2}', "1"),
        ('{"answer":1,"x":2}', "1"),
        ('{"answer": 9/4}', "9/4"),
        (r'{"answer": \frac{1}{2}}', r"\frac{1}{2}"),
        ('{"answer": [0, 3)}', "[0, 3)"),
        ('{"answer": (1, 2), "x": 1}', "(1, 2)"),
        ('{"answer": true}', "true"),
        ('{"answer": null}', None),
        ('{"answer": "7"}, {"answer": null}', "7"),
        # Quotes as Python writes them
        ("{'reasoning': 'so 5', 'answer': '7'}", "7"),
        ("{'answer': 'Tom\\'s 7'}", "Tom's 7"),
        ("{'answer': 'Tom's 7', 'x': 1}", "Tom's 7"),
        ("{'answer': \"Tom's 7\"}", "Tom's 7"),
        ("{'answer': '\\frac{1}{2}'}", r"\frac{1}{2}"),
        ("{'answer': '7", None),
        ("{'answer\": 7}", None),
        # Lists and objects
        ('{"answer": [1, 2]}', "1, 2"),
        ('{"answer": ["5"]}', "5"),
        ('{"answer": [[1, 2], [3, 4]]}', "(1, 2), (3, 4)"),
        (r'{"answer": {"value": "\frac12"}}', r"\frac12"),
        ('{"answer": {"x": 1, "y": "2"}}', "x=1, y=2"),
        # Strings whose quotation marks were not escaped, and second thoughts outside
        ('{"answer": "the "big" one"}', 'the "big" one'),
        ('{"answer": "5" or "6"}', '5" or "6'),
        # What was cut off states nothing
        ('{"answer": "12', None),
        ('{"answer": 12', None),
        ('{"answer": [1, 2', None),
        ('{"answer": {"x": 1', None),
        ('{"answer":', None),
        ('{"answer": ' + "[" * 3000, None),
        ('{"reanswer": 3}', None),
        ('{"answer": "7"} and {"answer": "8', "7"),
        ("answer: 5", None),
        ("", None),
    ],
)
def test_table(text: str, answer: str | None) -> None:
    field = json_answer(text)
    assert (None if field is None else field.value) == answer


def test_a_field_without_a_value_is_told_from_no_field() -> None:
    assert json_answer('{"answer": null}') == AnswerField(None, 1)
    assert json_answer('{"x": 5, "answer": "7') == AnswerField(None, 9)
    assert json_answer('{"answer": "7"} {"answer": "8') == AnswerField("7", 1)
    assert json_answer('{"x": 5}') is None


@given(
    value=st.text(alphabet=st.characters(exclude_characters='\\"', exclude_categories=["Cc"])).filter(
        lambda value: value == value.strip()
    ),
    before=st.text(max_size=30),
    after=st.sampled_from(["", "\n```", " Done.", "\n```</s></s>", "\n\nThis is the final result."]),
)
def test_a_valid_field_is_found_behind_any_text(value: str, before: str, after: str) -> None:
    text = before + "\n" + json.dumps({"reasoning": "so 5", "answer": value}, indent=2) + after
    assert json_answer(text) == AnswerField(value, text.rindex('"answer": '))


@pytest.mark.parametrize(
    "unit",
    [
        '"answer": "',
        '"answer": [',
        '"answer": {"answer": ',
        '"answer": {"a": [',
        '"answer": "\\"',
        '"answer":',
        '"',
        '"answer": (',
        "'answer': '",
        "'answer': 'a'b",
    ],
)
def test_time_grows_with_the_text(unit: str) -> None:
    assert growth(json_answer, unit) < 30
