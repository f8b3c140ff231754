r"""Answers in words: a word or phrase, a choice letter, a set in words.

Policies:
- Words are compared without regard to capitals, articles and punctuation: `\text{Tuesday}` is `tuesday`. They are
  never read as products of letters, so that `listen` is not `silent`.
- A choice is one capital letter from A to J, alone, in brackets or with a mark: `(C)`, `\text{C}`, `C.`. Followed by
  the content of the choice, `(C) 12` equals the letter and the content.
"""

from __future__ import annotations

import re

_TEXT_BODY = re.compile(r"\\text\s*\{([^{}]*)\}")
_PHRASE = re.compile(r"[A-Za-z][A-Za-z ,.'\"-]*")
_WORD = re.compile(r"[A-Za-z]+")
_TEXT_WORDS = re.compile(r"\\text\s*\{\s*[A-Za-z]{2}[A-Za-z ,.'-]*\}")
# Words that are too short to be told from products by their length.
_SHORT_WORDS = frozenset({"yes", "no", "odd"})
_NO_PHRASE = frozenset({"infinity"})
_ARTICLES = frozenset({"the", "a", "an"})
_CHOICE = re.compile(r"\(?\s*([A-J])\s*[).:]*")
_CHOICE_WITH_CONTENT = re.compile(
    r"(?:\(\s*([A-J])\s*\)[.:]?\s+|([A-J])\s*[).:]\s+)(?P<content>[^\s+*/^=<>-].*|-[0-9.]+)"
)
_SETS = {
    "all real numbers": "\\mathbb{R}", "all reals": "\\mathbb{R}", "the real numbers": "\\mathbb{R}",
    "no solution": "\\emptyset", "no solutions": "\\emptyset", "no real solution": "\\emptyset",
    "no real solutions": "\\emptyset", "empty set": "\\emptyset", "the empty set": "\\emptyset",
}  # fmt: skip


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
    if (
        longest < 4
        and bare.lower() not in _SHORT_WORDS
        and not (_TEXT_WORDS.fullmatch(text.strip()) or (len(words) > 1 and longest > 2))
    ):
        return None
    if any(word.lower() in _NO_PHRASE for word in words):
        return None
    kept = [word.lower() for word in words if word.lower() not in _ARTICLES or len(words) == 1]
    return " ".join(kept)


def means_set(text: str) -> str | None:
    """The set that a phrase stands for: `all real numbers`, `no solution`."""
    return _SETS.get(plain(text).strip(" .").lower())


def choice_letter(text: str) -> str | None:
    """The letter of an answer that is one letter of a choice."""
    found = _CHOICE.fullmatch(plain(text))
    return found[1] if found is not None else None


def choice_with_content(text: str) -> tuple[str, str] | None:
    r"""Part `(C) 12` and `\text{(C) }12` into letter and content."""
    found = _CHOICE_WITH_CONTENT.fullmatch(plain(text) if "\\text" in text else text)
    return None if found is None else (found[1] or found[2], found["content"])
