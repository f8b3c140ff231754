r"""Sentences that state one number: "The farmer has 27 sheep.", "200 tiles x $12 per tile = $2400", "Total cost: 50".

Only what follows is read, of several sentences the last one; everything else states nothing:

- A statement: subject, verb, the number, a noun or none, a complement or none. The verb stands directly before
  the number ("is", "has", "costs", "will earn", "takes Jane"; "Jordan changes"), and no other verb has a number. The
  subject has none ("The least number for 24 berries is 12 berries." has, but ends with the noun), and none is compared
  with the number or added to it ("8 hours and thirty minutes", "12 in 100", "8 out of twelve"). A complement behind the
  noun may hold numbers ("$28 if they take the bus 5 times").
- A calculation in words that ends in `= number`.
- A label in words with a number behind it.

A sentence that guesses, denies, bounds, supposes or offers alternatives states nothing, and neither does one in which a
letter stands for something or the number is part of an expression.
"""

from __future__ import annotations

import re

from reward_models.answers.number_words import changes_number
from reward_models.answers.units import NO_UNIT, is_noun
from reward_models.answers.words import plain

_NUMBER = (
    r"(?:\\?\$\s?)?-?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?%?+"
    r"(?![A-Za-z0-9]|\.[0-9]|\s?[-+*/^_=:!(])"
)
_STATED = re.compile(r"(?:\\?\$\s?)?-?[0-9]")
_SENTENCE_END = re.compile(r"(?<=[A-Za-z0-9][.!?])\s+(?=[A-Z])")
_CALCULATION = re.compile(r".+=\s*(?P<result>[^=]+)", re.DOTALL)
_LABEL = re.compile(rf"[A-Za-z]+(?:\s+[A-Za-z,']+)+:\s*(?P<result>{_NUMBER}(?:\s+[A-Za-z]{{3,}})*)\.?")
_COPULA = r"is|are|was|were|equals"
# A name or a pronoun, and what it does: "Jordan changes".
_DOES = r"[A-Z][a-z]+\s+[a-z]+(?:s|ed)"
_MODAL = r"(?:will|can|must|would|(?:need|ha[sd]|have)s?\s+to)\s+[a-z]+"
_TO_WHOM = r"(?:\s+(?:[A-Z][a-z]+|him|her|them|us|me|you))?"
_HAS = r"has|have|had|contain(?:s|ed)?|need(?:s|ed)?|earn(?:s|ed)?|makes?|made|gets?|got|saved?|saves|pays?|paid"
_VERB = rf"(?P<copula>{_COPULA})|(?:takes?|took|costs?|{_MODAL}){_TO_WHOM}|{_HAS}|{_DOES}"
_VERB_WITH_NUMBER = re.compile(
    rf"\b(?<!to )(?:{_VERB})\s+(?:a\s+total\s+of\s+)?(?=(?P<stated>\\?\$?\s?-?[0-9]|[A-Za-z]+))"
)
_WORDS = re.compile(r"[A-Za-z']+")
_PIECE = re.compile(r"[A-Za-z][A-Za-z'-]*|[0-9]+(?:[.,/][0-9]+)*|[^\sA-Za-z0-9]")
_DOUBT_TEXT = (
    "not no never none or either neither maybe perhaps guess probably approximately about roughly nearly almost "
    "around unless cannot can't isn't doesn't unknown incorrect wrong impossible insufficient incomplete between "
    "think might may could should except instead but assume assuming suppose supposing error"
)
_DOUBT = frozenset(_DOUBT_TEXT.split())
# They begin a complement; a number directly behind one of them is compared with the number before.
_COMPLEMENT_TEXT = (
    "if when while for than with because since to after before by in at per from as of on out without until given "
    "every over"
)
_COMPLEMENT = frozenset(_COMPLEMENT_TEXT.split())
_CONDITIONS = frozenset({"if", "when", "whether", "after", "before", "for", "because", "since", "given", "with"})
_DETERMINERS = frozenset({"the", "a", "an", "each", "all", "both", "only", "first", "last"})
_COMPARISONS = frozenset({"more", "less", "fewer"})
_BOUNDS = frozenset({"least", "most", "up", "upwards"})
# "He will divide 12 apples" states no result.
_OPERATION = re.compile(r"\b(?:doubl|halv|tripl|divid|multipl|subtract|add|squar|reduc|exceed)\w*\W+\$?[0-9]", re.I)


def stated_number(text: str) -> str | None:
    """The one number that a sentence states, as it is written; None if it states none or leaves doubt."""
    whole = plain(text)
    words = [word.lower() for word in _WORDS.findall(whole)]
    if not _DOUBT.isdisjoint(words):
        return None
    sentence = _SENTENCE_END.split(whole)[-1]
    label = _LABEL.fullmatch(sentence)
    if label is not None:
        return label["result"]
    if sum(len(word) > 2 for word in words) < 2:
        return None
    calculation = _CALCULATION.fullmatch(sentence)
    if calculation is not None:
        result = calculation["result"].strip().rstrip(".")
        return result if _STATED.match(result) and not _has_letters(sentence) else None
    return None if "\\" in sentence.replace("\\$", "") or _OPERATION.search(sentence) else _statement(sentence)


def _statement(sentence: str) -> str | None:
    """The number behind the only verb that has one."""
    by_number = {
        match.start("stated"): match
        for start in re.finditer(r"\b[A-Za-z]", sentence)
        if (match := _VERB_WITH_NUMBER.match(sentence, start.start())) is not None
        and (not match["stated"].isalpha() or changes_number(match["stated"]))
    }
    if len(by_number) != 1:
        return None
    found = list(by_number.values())
    subject = [word.lower() for word in _PIECE.findall(sentence[: found[0].start()])]
    number = re.compile(_NUMBER).match(sentence, found[0].start("stated"))
    if number is None or _CONDITIONS.intersection(subject[:1]):
        return None
    pieces = [piece.lower() for piece in _PIECE.findall(sentence[number.end() :].rstrip(" ."))]
    end = next((index for index, piece in enumerate(pieces) if piece in _COMPLEMENT), len(pieces))
    noun, complement = pieces[:end], pieces[end:]
    named = "$" in number[0] or bool(set(noun) - _COMPARISONS)
    if not _is_noun_phrase(noun) or not _BOUNDS.isdisjoint(pieces):
        return None
    if any(map(_tells_number, subject)):
        of_all = found[0]["copula"] and named and not complement and "and" not in subject
        return number[0] if of_all else None
    return number[0] if _adds_nothing(complement, named=named) else None


def _is_noun_phrase(noun: list[str]) -> bool:
    if noun and not (noun[0] in _COMPARISONS or is_noun(noun[0])):
        return False
    others = set(noun) - _COMPARISONS
    return not any(
        word in NO_UNIT or word == "dozen" or changes_number(word) or not word[0].isalpha() for word in others
    )


def _adds_nothing(complement: list[str], *, named: bool) -> bool:
    """Whether the number stands for itself: nothing is compared with it or added to it."""
    numbers = 0
    for index, piece in enumerate(complement):
        behind = [word for word in complement[index + 1 :] if word not in _DETERMINERS | {"of"}][:1]
        before_number = any(map(_tells_number, behind))
        if piece in {"=", ":", ";"} or (piece == "than" and before_number):
            return False
        if before_number and ((index == 0 and not named) or (piece in {"and", ","} and not numbers)):
            return False
        numbers += _tells_number(piece)
    return True


def _tells_number(piece: str) -> bool:
    return piece[0].isdigit() or changes_number(piece)


def _has_letters(sentence: str) -> bool:
    """True if a letter stands alone, which may be a variable; ` x 12` multiplies."""
    return any(
        not re.match(r"\s+\\?\$?[0-9]", sentence[word.end() :]) or word[0] != "x"
        for word in _WORDS.finditer(sentence)
        if len(word[0]) == 1 and word[0] not in {"a", "A", "I"}
    )
