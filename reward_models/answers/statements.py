r"""An answer that is stated in words: "Answer: 5", "A: 5", "#### 5", "the answer is 5", `<answer>5</answer>`.

What counts as a statement:

- `<answer>...</answer>`, closed.
- A line that begins with "Answer:", "Final answer:", "The answer:" (mark-up of any kind around them; no colon is
  needed before a formula), or such a heading with the answer on the next line that is not empty.
- A line that begins with "A:", unless a line begins with "B:" too, for then they are options.
- "#### 5" with nothing else in its line, as in GSM8K, at the end of the text, or before a blank line where the text
  has no other "####", so that it is no heading among others.
- "the answer is", "the final answer to the problem must be", "answer = ", "the answer:" within a sentence.

A tag goes before the rest; of the rest the last statement counts. No statement is made by "an answer", nor where
the answer is denied, asked or supposed: "the answer is not 3", "if the answer is 3", "the answer is 3?".

What is stated: the formula or bold text that follows, or formulas in a list; else the sentence up to its end, or to
its reason ("..., because"). Where more follows that changes the answer ("5 or maybe 6", "5 million", "5 + 1") all of it
is stated, so that it equals neither 5 nor 6. Code and program output state nothing.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from reward_models.answers.formulas import Formula, formula_at, formulas
from reward_models.answers.lists import as_one, connects
from reward_models.answers.prose import without_code, without_emphasis
from reward_models.answers.whole import whole_answer

# So much of a text is looked at around the word "answer", and so often, from the end backwards.
MAX_STATEMENT_CHARS = 1000
MAX_STATEMENTS = 500
_MAX_CLAUSE_CHARS = 120
# A longer phrase without a digit is talk about the answer ("hard to find with the means at hand").
MAX_WORDS = 12
# Behind a heading the answer has a line of its own; a longer one is the beginning of an explanation.
MAX_OWN_LINE_CHARS = 80

_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*+)</answer>", re.DOTALL | re.IGNORECASE)
_WORD = re.compile(r"(?<![\w\"'\\])(?:answer|ans)(?!\w)", re.IGNORECASE)
_OPTION_A = re.compile(r"^[ \t>*_]*+A[*_]*+[ \t]*+[:：]", re.MULTILINE)
_OPTION_B = re.compile(r"^[ \t>*_]*+B[*_]*+[ \t]*+[:：]", re.MULTILINE)
_HASHES = re.compile(r"(?<!\S)####(?!#)(?P<line>[^#\n]+)(?:\s*+\Z|\n[ \t\r]*+\n)")
_NUMBERED = re.compile(r"\s*\d+[.)]\s+\S")

_ADJECTIVES = r"(?:(?:final|correct|right|overall)\s+)?"
_BEFORE_LABEL = re.compile(
    rf"[\s>*_#•{{-]*(?:\\text(?:bf|it)?\{{)?(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the|my|our)\s+)?{_ADJECTIVES}",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[ \t]*(?:\([^()\n]{0,40}\))?[ \t*_}]*[:：](?:\*\*|__|[*_}])?|[ \t]+(?=\$|\\[(\[])")
_HEADING = re.compile(r"[ \t]*[*_]*[ \t]*(?=\n)")
_MARKED_UP = re.compile(r"[\s>]*(?:#|\*\*|__)")
_IS = re.compile(
    r"(?:\s+(?:to|for|of|here|then|now)\b[^.:;?!=\n]{0,80}?)?"
    r"(?:\s+(?:is|must\s+be|should\s+be|will\s+be|equals|was)\b|\s*=|(?=\s*:)"
    r"|\s+(?:is|was|does|can?|could|should|would|must)(?=\s*n(?:ot|['’]t)\b))"
    r"(?:\s*(?:therefore|thus|then|simply|just|clearly|indeed|exactly|equal\s+to|found\s+to\s+be"
    r"|given\s+by|as\s+follows)\b,?)*[ \t]*:?"
)
_DENIED_BEFORE = re.compile(
    r"\b(?:if|whether|suppose|assum\w+|unless|maybe|perhaps|possibly|guess\w*|doubt\w*|hope|not|never|an|no|any|each"
    r"|every|what|which|another|wrong|incorrect)\b|n['’]t\b",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[.,;:!?\n]")
_DENIED = re.compile(
    r"\W*(?:not|n['’]t|never|neither|no\s+longer|hardly|unlikely|wrong|incorrect|unknown|unclear|anything\s+but|other\s+than"
    r"|different\s+from|far\s+from)\b",
    re.IGNORECASE,
)
# "Not 5 but 7" and "not only 5".
_DENIED_END = re.compile(r"[.?](?=[\s\"”*]|$)|\n|\bbut\b(?!\s+(?:also|not)\b)")
_NEGATION = re.compile(r"\b(?:not|never)\b|n['’]t\b", re.IGNORECASE)
_OPENING_MARKS = re.compile(r"[\s`\"“”}]*")
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_MARKS = ' \t\n*_`"“”'
_SENTENCE_END = re.compile(r"(?<![ap]\.m)(?P<end>[.?])(?=[\s\"”*]|$)|\n|<[/|]", re.IGNORECASE)
_REASON = re.compile(
    r"(?:\s*[,;(]|\s+[—–-])\s+(?:because|since|as|so|which|where|when|but|not|hence|thus|therefore|that|i\.e)\b"
    r"|\s+(?:because|since)\b",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    r"\s*(?:[-+*/^×÷·=<>≤≥±%°!$]|\\|to\s+[$\d]"
    r"|[,;(]?\s*(?:or|and|alternatively|through|up\s+to)\b(?!\s+(?:so|we|the|that|this|it|not)\b)"
    r"|(?:hundred|thousand|million|billion|trillion|dozen|percent|pi|maybe|perhaps|squared|cubed|plus|minus|times)\b)",
    re.IGNORECASE,
)
# GSM8K notes its calculations in the text: 5 * 3 = <<5*3=15>>15.
_CALCULATION = re.compile(r"<<[^<>\n]*>>")
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_DIGIT = re.compile(r"[0-9\\=√π∞]")


class _Head(NamedTuple):
    end: int
    rule: str


class _Statement(NamedTuple):
    start: int
    answer: str
    rule: str


def stated_answer(text: str) -> tuple[str, str] | None:
    """Return the stated answer and the rule that found it, or None; takes time in proportion to the text."""
    tag = deque(_TAG.finditer(text), maxlen=1)
    if tag:
        inside = _last_statement(tag[0][1])
        return tag[0][1].strip() if inside is None else inside.answer, "answer tag"
    found = _last_statement(without_code(text))
    return None if found is None else (found.answer, found.rule)


def behind_denials(text: str) -> str:
    """The text behind the last denial of an answer ("the answer is not 5"), without code; all of it without one."""
    prose = without_code(text)
    for word in reversed(deque(_WORD.finditer(prose), maxlen=MAX_STATEMENTS)):
        verb = _IS.match(prose, word.end(), word.end() + MAX_STATEMENT_CHARS)
        if verb is not None and (_DENIED.match(prose, verb.end()) or _NEGATION.search(_clause_before(prose, word))):
            denied_end = _DENIED_END.search(prose, verb.end())
            return "" if denied_end is None else prose[denied_end.end() :]
    return text


def _last_statement(prose: str) -> _Statement | None:
    made = (_last_word(prose), _last_option(prose), _last_hashes(prose))
    return max((statement for statement in made if statement is not None), default=None)


def _last_word(text: str) -> _Statement | None:
    """The last statement that is made with the word "answer"."""
    for word in reversed(deque(_WORD.finditer(text), maxlen=MAX_STATEMENTS)):
        head = _head(text, word)
        if head is None:
            continue
        answer = _read(text[head.end : head.end + MAX_STATEMENT_CHARS])
        if answer is not None:
            return _Statement(word.start(), answer, head.rule)
    return None


def _last_option(text: str) -> _Statement | None:
    """The last line "A: ...", where A is no option among others."""
    lines = deque(_OPTION_A.finditer(text), maxlen=MAX_STATEMENTS)
    if not lines or _OPTION_B.search(text):
        return None
    for line in reversed(lines):
        answer = _read(text[line.end() : line.end() + MAX_STATEMENT_CHARS])
        if answer is not None:
            return _Statement(line.start(), answer, "answer line")
    return None


def _last_hashes(text: str) -> _Statement | None:
    """The last "#### 5" that is no heading."""
    found = deque(_HASHES.finditer(text), maxlen=1)
    if not found or _NUMBERED.match(found[0]["line"]):
        return None
    if found[0].end() < len(text) and text.count("####") > 1:
        return None
    said = _read(found[0]["line"].strip())
    if said is None or not _DIGIT.search(said) or whole_answer(said) is None:
        return None
    return _Statement(found[0].start(), said, "answer line")


def _head(text: str, word: re.Match[str]) -> _Head | None:
    """Find the label or the beginning of a sentence that the word is part of; None if it introduces nothing."""
    before = _line_before(text, word)
    if _BEFORE_LABEL.fullmatch(before):
        label = _LABEL.match(text, word.end())
        if label is None and _MARKED_UP.match(before):
            label = _HEADING.match(text, word.end())
        if label is not None:
            return _Head(label.end(), "answer line")
    verb = _IS.match(text, word.end(), word.end() + MAX_STATEMENT_CHARS)
    if verb is None or _DENIED_BEFORE.search(_clause_before(text, word)):
        return None
    return _Head(verb.end(), "answer sentence")


def _line_before(text: str, word: re.Match[str]) -> str:
    begin = max(0, word.start() - _MAX_CLAUSE_CHARS)
    line_break = text.rfind("\n", begin, word.start())
    return text[begin if line_break < 0 else line_break + 1 : word.start()]


def _clause_before(text: str, word: re.Match[str]) -> str:
    return _CLAUSE_END.split(_line_before(text, word))[-1]


def _read(text: str) -> str | None:
    """Read the value at the beginning of a text; None if it says nothing, asks or denies."""
    text = _CALCULATION.sub("", text)
    start = _end(_OPENING_MARKS, text)
    if _DENIED.match(text, start):
        return None
    item = _item_at(text, start)
    if item is None:
        if "\n" in text[:start] and len(text[start:].split("\n", 1)[0]) > MAX_OWN_LINE_CHARS:
            return None
        return _read_words(_sentence(text, start))
    contents, end = _items(text, item)
    rest = _sentence(text, end)
    if rest is None:
        return None
    return _read_words(text[start:end] + rest) if _CHANGES.match(rest) else as_one(contents)


def _item_at(text: str, start: int) -> Formula | None:
    """The formula or the bold text that begins at `start`."""
    bold = _BOLD.match(text, start)
    if bold is None:
        return formula_at(text, start)
    inside = formula_at(bold[1], 0)
    content = bold[1].strip() if inside is None or inside.end < len(bold[1].rstrip(" .")) else inside.content
    return Formula(content, start, bold.end())


def _items(text: str, first: Formula) -> tuple[list[str], int]:
    """The contents of the list that begins with this formula, and where it ends."""
    contents = [first.content]
    offset = end = first.end
    for following in formulas(text[offset:]):
        if not connects(text[end : offset + following.start]):
            break
        contents.append(following.content)
        end = offset + following.end
    return contents, end


def _sentence(text: str, start: int) -> str | None:
    """The text up to the end of its sentence or line; None if that is a question."""
    end = _SENTENCE_END.search(text, start)
    if end is None:
        return text[start:]
    return None if end[0] == "?" else text[start : end.start()]


def _read_words(sentence: str | None) -> str | None:
    """What a sentence says up to its reason, without mark-up; None if it says nothing that could be an answer."""
    if sentence is None:
        return None
    said = without_emphasis(_REASON.split(sentence, maxsplit=1)[0]).strip(_MARKS).rstrip(".,;:").strip(_MARKS)
    said = _without_outer_bracket(said)
    if not said or _NEGATION.search(said) or (not _DIGIT.search(said) and len(said.split()) > MAX_WORDS):
        return None
    return said


def _without_outer_bracket(said: str) -> str:
    """Drop a last bracket that was opened before the answer: "(so the answer is 5)"."""
    if (
        said[-1:] in _CLOSING
        and said[0] not in _CLOSING
        and sum((mark in _OPENING) - (mark in _CLOSING) for mark in said) < 0
    ):
        return said[:-1].rstrip(".,;: ")
    return said


def _end(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.match(text)
    return 0 if found is None else found.end()
