r"""Where the answer stands in a response.

Three policies, each taking the first of its rules that finds something:

- `boxed`: the box. The default for training: nothing is guessed from prose.
- `marked`: the box, a JSON field `"answer": ...`, a line `Answer: ...` or `A: ...`, "the answer is ...".
- `lenient`: as `marked`, else a response that is one expression, else the last formula or number. For
  evaluation only: a number in passing counts as an answer.

Of several places that fit one rule the last one counts.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Literal, NamedTuple

from reward_models.answers.boxes import first_simple_box, last_box

ExtractionPolicy = Literal["boxed", "marked", "lenient"]
BoxChoice = Literal["last", "first"]

_JSON_FIELD = re.compile(r'"(?:final_)?answer"\s*:\s*(?P<value>"(?:[^"\\]|\\.)*"|[^\s",}\]]+)', re.IGNORECASE)
_ANSWER_LINE = re.compile(
    r"^[ \t>*_#]*(?:final[ \t]+)?(?:answer|A)[*_]*[ \t]*[:：][*_]*[ \t]*(?P<value>\S.*)$",
    re.MULTILINE | re.IGNORECASE,
)
_ANSWER_IS = re.compile(r"\banswer(?:[ \t]+is|[ \t]*=)[ \t]*:?[ \t]*(?P<value>\S.*)$", re.MULTILINE | re.IGNORECASE)
# No opening inside, so that unclosed openings cannot each be searched to the end of the text.
_FORMULA = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|\$(?P<b>[^$\n]+)\$|\\\((?P<c>(?:(?!\\[()]).)+)\\\)|\\\[(?P<d>(?:(?!\\[\[\]]).)+)\\\]",
    re.DOTALL,
)
_NUMBER = re.compile(r"-?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:/[0-9]+)?")
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}")
# Names that may stand in a bare formula although they look like words.
_FUNCTIONS = frozenset({"sqrt", "pi", "sin", "cos", "tan", "sec", "csc", "cot", "log", "ln", "exp", "or", "and"})
# A longer response without a marked answer is prose.
MAX_BARE_EXPRESSION_CHARS = 200


class Extracted(NamedTuple):
    """An answer as it stands in the response, and the rule that found it."""

    text: str
    rule: str


def after_thinking(response: str, thinking_end: str | None) -> str:
    """Return the text after the last `thinking_end`, or the whole text where it does not occur.

    A response that opens its thinking (`<think>` for `</think>`) and never closes it has said nothing: "".
    """
    if not thinking_end:
        return response
    _, found, rest = response.rpartition(thinking_end)
    if found:
        return rest
    thinking_start = thinking_end.replace("</", "<", 1)
    return "" if thinking_start != thinking_end and thinking_start in response else response


def extract(text: str, policy: ExtractionPolicy, box: BoxChoice = "last") -> Extracted | None:
    """Find the answer by the policy; `box` says which box counts where there are several."""
    found = last_box(text) if box == "last" else first_simple_box(text)
    if found is not None:
        return Extracted(found.content.strip(), f"{box} box")
    if policy == "boxed":
        return None
    marked = _marked(text)
    if marked is not None or policy == "marked":
        return marked
    return _bare_expression(text) or _last_expression(text)


def _marked(text: str) -> Extracted | None:
    field = _last(_JSON_FIELD, text)
    if field is not None:
        return Extracted(_json_text(field["value"]), "JSON field")
    line = _last(_ANSWER_LINE, text)
    if line is not None:
        return Extracted(_statement(line["value"]), "answer line")
    sentence = _last(_ANSWER_IS, text)
    return None if sentence is None else Extracted(_statement(sentence["value"]), "answer sentence")


def _bare_expression(text: str) -> Extracted | None:
    """The whole response, if it is one line of mathematics without words."""
    line = text.strip()
    if not line or len(line) > MAX_BARE_EXPRESSION_CHARS or "\n" in line or _FORMULA.search(line):
        return None
    words = {word.lower() for word in _WORD.findall(_COMMAND.sub(" ", line))}
    return Extracted(line, "whole response") if words <= _FUNCTIONS else None


def _last_expression(text: str) -> Extracted | None:
    """The last formula between delimiters, or the last number if none comes after it."""
    formula, number = _last(_FORMULA, text), _last(_NUMBER, text)
    if formula is not None and (number is None or number.start() < formula.end()):
        content: str = next(group for group in formula.groups() if group is not None)
        return Extracted(content.strip(), "last formula")
    return None if number is None else Extracted(number[0].rstrip(","), "last number")


def _statement(text: str) -> str:
    """Cut what follows an answer in its sentence, and its mark-up: `**$5$**. I hope ...` is `5`."""
    formula = _FORMULA.match(text.lstrip("*_ "))
    if formula is not None:
        return next(group for group in formula.groups() if group is not None).strip()
    return _SENTENCE_END.split(text, maxsplit=1)[0].strip().strip("*_`").strip()


def _json_text(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value, strict=False)).strip()
    except ValueError:  # LaTeX in JSON is often not escaped: "\frac" is then meant as it stands
        return value[1:-1].strip()


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None
