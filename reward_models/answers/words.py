r"""Answers in words: a word or phrase, a choice letter, a number in words, a sentence that states one number.

Policies:
- Words are compared without regard to capitals, articles and punctuation: `\text{Tuesday}` is `tuesday`. They are
  never read as products of letters, so that `listen` is not `silent`.
- A choice is one capital letter from A to J, alone, in brackets or with a mark: `(C)`, `\text{C}`, `C.`. Followed by
  the content of the choice, `(C) 12` equals the letter and the content.
- A number in words is the number: `\text{eight}` is 8.
- A sentence, the last one of several, states a number if it ends in "is" and the number ("The total is 12 cups."), or
  has exactly one number before the first preposition or conjunction behind it ("They can save $28 if they ..."), or is
  a calculation in words that ends in `= number`, or a label in words with a number behind it (`Total cost: 50`). One
  that guesses, denies, bounds or offers alternatives states nothing, and neither does "the answer is C".
"""

from __future__ import annotations

import re

_TEXT_BODY = re.compile(r"\\text\s*\{([^{}]*)\}")
_PHRASE = re.compile(r"[A-Za-z][A-Za-z ,.'\"-]*")
_WORD = re.compile(r"[A-Za-z]+")
_TEXT_WORDS = re.compile(r"\\text\s*\{\s*[A-Za-z]{2}[A-Za-z ,.'-]*\}")
_NO_PHRASE = frozenset({"infinity"})
_ARTICLES = frozenset({"the", "a", "an"})
_CHOICE = re.compile(r"\(?\s*([A-J])\s*[).:]*")
_CHOICE_WITH_CONTENT = re.compile(
    r"(?:\(\s*([A-J])\s*\)[.:]?\s+|([A-J])\s*[).:]\s+)(?P<content>[^\s+*/^=<>-].*|-[0-9.]+)"
)
_ONES_TEXT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_ONES = tuple(_ONES_TEXT.split())
_TENS_TEXT = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = tuple(_TENS_TEXT.split())
_SETS = {
    "all real numbers": "\\mathbb{R}", "all reals": "\\mathbb{R}", "the real numbers": "\\mathbb{R}",
    "no solution": "\\emptyset", "no solutions": "\\emptyset", "no real solution": "\\emptyset",
    "no real solutions": "\\emptyset", "empty set": "\\emptyset", "the empty set": "\\emptyset",
}  # fmt: skip

_STATED = re.compile(
    r"(?:\\?\$\s?)?(?<![A-Za-z0-9_^\\])-?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?%?"
)
_HEDGES_TEXT = (
    "not no never none or either neither maybe perhaps guess probably approximately about roughly nearly almost "
    "around unless cannot can't isn't doesn't unknown incorrect wrong impossible insufficient incomplete between "
    "think"
)
_HEDGES = frozenset(_HEDGES_TEXT.split())
_CLAUSE_ENDS_TEXT = (
    "if when while for than with because since to after before by in at per from as of on that which without until "
    "given where"
)
_CLAUSE_ENDS = frozenset(_CLAUSE_ENDS_TEXT.split())
_CALCULATION = re.compile(r"(?P<work>.+)=\s*(?P<result>[^=]+)", re.DOTALL)
_LABEL = re.compile(rf"[A-Za-z][A-Za-z ,']*:\s*(?P<result>{_STATED.pattern}(?:\s+[A-Za-z]{{3,}})*)")
_SENTENCE_END = re.compile(r"(?<=[A-Za-z0-9][.!?])\s+(?=[A-Z])")
_PREDICATE_START = re.compile(r"\b(?:is|are|was|were|equals)\s+\\?\$?-?[0-9]")
_PREDICATE = re.compile(
    rf"(?P<before>.*)\b(?:is|are|was|were|equals)\s+(?P<number>{_STATED.pattern})(?P<after>(?:\s+[A-Za-z]{{2,}}){{0,4}})\s*\.?"
)
_NO_NOUNS_TEXT = (
    "times more less fewer and plus minus squared cubed hundred thousand million billion dozen percent sqrt pi divided "
    "multiplied"
)
_NO_NOUNS = frozenset(_NO_NOUNS_TEXT.split())
# Before the number, these make it a bound.
_BOUNDS = frozenset({"than", "least", "most", "over", "under", "up", "exceeds", "below", "above"})
_OPERATORS = frozenset("+*/^(-=_")
# The number is part of an expression.
_GOES_ON = re.compile(
    r"[A-Za-z](?![A-Za-z])|\s*[-+*/^_(:=!]|\s*(?:sqrt|pi|times|plus|minus|squared|cubed|divided|multiplied|hundred|thousand"
    r"|million|billion|trillion|dozen|percent|degrees)\b"
)


def plain(text: str) -> str:
    r"""The text without its `\text` commands."""
    return _TEXT_BODY.sub(lambda found: f" {found[1]} ", text).strip()


def words_of(text: str) -> str | None:
    """The words of an answer that is a word or phrase, in one spelling; None if it is anything else."""
    bare = plain(text)
    if not _PHRASE.fullmatch(bare):
        return None
    words = _WORD.findall(bare)
    longest = max(map(len, words))
    if longest < 4 and not (_TEXT_WORDS.fullmatch(text.strip()) or (len(words) > 1 and longest > 2)):
        return None
    if any(word.lower() in _NO_PHRASE for word in words):
        return None
    kept = [word.lower() for word in words if word.lower() not in _ARTICLES or len(words) == 1]
    return " ".join(kept)


def means_set(text: str) -> str | None:
    """The set that a phrase stands for: `all real numbers`, `no solution`."""
    return _SETS.get(plain(text).strip(" .").lower())


def number_in_words(text: str) -> int | None:
    """Read `eight`, `twenty-one`, `one hundred`."""
    words = plain(text).lower().replace("-", " ").rstrip(".").split()
    total = 0
    match words:
        case [one] if one in _ONES:
            total = _ONES.index(one)
        case [ten] if ten in _TENS:
            total = 20 + 10 * _TENS.index(ten)
        case [ten, one] if ten in _TENS and one in _ONES[1:10]:
            total = 20 + 10 * _TENS.index(ten) + _ONES.index(one)
        case [one, "hundred"] if one in _ONES[1:10]:
            total = 100 * _ONES.index(one)
        case _:
            return None
    return total


def choice_letter(text: str) -> str | None:
    """The letter of an answer that is one letter of a choice."""
    found = _CHOICE.fullmatch(plain(text))
    return found[1] if found is not None else None


def choice_with_content(text: str) -> tuple[str, str] | None:
    r"""Part `(C) 12` and `\text{(C) }12` into letter and content."""
    found = _CHOICE_WITH_CONTENT.fullmatch(plain(text) if "\\text" in text else text)
    return None if found is None else (found[1] or found[2], found["content"])


def stated_number(text: str) -> str | None:
    """The one number that a sentence states, as it is written; None if it states none or leaves doubt."""
    sentence = plain(text)
    words = [word.lower() for word in re.findall(r"[A-Za-z']+", sentence)]
    if len(words) < 2 or sum(len(word) > 2 for word in words) < 2 or not _HEDGES.isdisjoint(words):
        return None
    sentence = _SENTENCE_END.split(sentence)[-1]
    label = _LABEL.fullmatch(sentence)
    if label is not None:
        return label["result"]
    calculation = _CALCULATION.fullmatch(sentence)
    if calculation is not None:
        result = calculation["result"].strip().rstrip(".")
        return result if _STATED.match(result) and not _single_letters(sentence) else None
    if "\\" in sentence.replace("\\$", "") or "=" in sentence:
        return None
    return _as_predicate(sentence) or _in_main_clause(sentence)


def _as_predicate(sentence: str) -> str | None:
    """The number in `... is 12 berries.` at the end, if no other is said to be anything."""
    found = _PREDICATE.fullmatch(sentence)
    if found is None or _PREDICATE_START.search(found["before"]):
        return None
    after = {word.lower() for word in _WORD.findall(found["after"])}
    return found["number"] if after.isdisjoint(_CLAUSE_ENDS | _NO_NOUNS) else None


def _in_main_clause(sentence: str) -> str | None:
    first = _STATED.search(sentence)
    opening = _WORD.search(sentence)
    if first is None or (opening is not None and opening[0].lower() in _CLAUSE_ENDS):
        return None
    end = len(sentence)
    for word in _WORD.finditer(sentence, first.end()):
        if word[0].lower() in _CLAUSE_ENDS:
            end = word.start()
            break
    if any(character.isdigit() for character in sentence[first.end() : end]):
        return None
    before, after = sentence[: first.start()].rstrip(), sentence[first.end() :]
    if not _BOUNDS.isdisjoint(before.lower().split()):
        return None
    if not _WORD.search(before) or before[-1] in _OPERATORS or _GOES_ON.match(after):
        return None
    return first[0]


def _single_letters(sentence: str) -> bool:
    """True if a letter stands alone, which may be a variable; `x` between numbers is a multiplication sign."""
    return any(
        word[0] != "x" or not sentence[: word.start()].rstrip()[-1:].isalnum()
        for word in _WORD.finditer(sentence)
        if len(word[0]) == 1 and word[0] not in {"a", "A", "I"}
    )
