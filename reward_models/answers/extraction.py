r"""Where the answer stands in a response.

Three policies, each taking the first of its rules that finds something:

- `boxed`: the last box, or the list of boxes it ends (`reward_models.answers.boxes`). The default for training:
  nothing is guessed from prose. A box is the answer whatever the sentence around it says ("the answer is not
  \boxed{5}" answers 5): who boxes an answer gives it, and reading the words around would be guessing.
- `marked`: the box, else the last JSON field `"answer": ...` (`answers.json_field`), else the last statement such as
  "Answer: 5", "A: 5", "#### 5" or "the answer is 5" (`answers.statements`). Nothing that is not declared to be the
  answer counts.
- `lenient`: as `marked`, else a response that is nothing but an answer (`answers.whole`), else the last formula or
  number (`answers.lenient`). For evaluation only: a number in passing counts as an answer, so a model that is trained
  on it learns to write many.

Kinds have this order wherever they stand: a box counts also before an "Answer:" that says something else, and each
policy agrees with the stricter one where that finds an answer. There is one exception: a JSON field behind the last
box is what `marked` and `lenient` read, since the box then stands in the reasoning that the same object, or the text
before it, gives. Of several places of one kind the last one counts.

What was cut off before its end states nothing: a box without its brace, a JSON value without its end, a tag without
its closing tag. Nor is anything guessed in its place: `lenient` finds no answer where the only JSON fields are cut
off or null or the tag is not closed, and behind a denied answer ("the answer is not 5") reads only what follows.
What is merely supposed or asked ("maybe the answer is 5") is not denied, and may be guessed.
Every rule takes time in proportion to the text.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from reward_models.answers.boxes import first_simple_box, last_box, last_boxes
from reward_models.answers.json_field import json_answer
from reward_models.answers.lenient import last_expression
from reward_models.answers.lists import as_one
from reward_models.answers.statements import behind_denials, stated_answer
from reward_models.answers.whole import whole_answer

ExtractionPolicy = Literal["boxed", "marked", "lenient"]
BoxChoice = Literal["last", "first"]


class Extracted(NamedTuple):
    """An answer as it stands in the response, and the rule that found it."""

    text: str
    rule: str


def after_thinking(response: str, thinking_end: str | None) -> str:
    """Return the text after the last `thinking_end`, or the whole text where thinking is neither ended nor opened.

    A response that opens its thinking (`<think>` for `</think>`, `[THINK]` for `[/THINK]`) and never closes it has
    said nothing: "". So has one that opens it again after the last end. Where the prompt opens the thinking, a
    response that was cut off inside cannot be told from one without thinking.
    """
    if not thinking_end:
        return response
    _, _, rest = response.rpartition(thinking_end)
    thinking_start = thinking_end.replace("/", "", 1)
    return "" if thinking_start != thinking_end and thinking_start in rest else rest


def extract(text: str, policy: ExtractionPolicy, box: BoxChoice = "last") -> Extracted | None:
    """Find the answer by the policy; `box` says which box counts where there are several."""
    boxed = _boxed(text, box)
    if policy == "boxed":
        return boxed
    field = json_answer(text)
    if field is not None and field.value is not None and (boxed is None or _box_before(text, field.start)):
        return Extracted(field.value, "JSON field")
    if boxed is not None:
        return boxed
    if field is not None:
        return None
    stated = stated_answer(text)
    if stated is not None:
        return Extracted(*stated)
    return _guessed(text) if policy == "lenient" else None


def _boxed(text: str, box: BoxChoice) -> Extracted | None:
    if box == "first":
        first = first_simple_box(text)
        return None if first is None else Extracted(first.content.strip(), "first box")
    boxes = last_boxes(text)
    if boxes is None:
        return None
    return Extracted(as_one(boxes), "last box" if len(boxes) == 1 else "last boxes")


def _box_before(text: str, place: int) -> bool:
    """True if the last box stands before this place."""
    last = last_box(text)
    return last is not None and last.start < place


def _guessed(text: str) -> Extracted | None:
    """What a lenient reader takes where nothing is declared to be the answer."""
    if "<answer>" in text.lower():  # never closed, or it would have been read
        return None
    rest = behind_denials(text)
    whole = whole_answer(rest)
    if whole is not None:
        return Extracted(whole, "whole response")
    last = last_expression(rest)
    return None if last is None else Extracted(*last)
