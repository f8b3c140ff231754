"""What is read out of a response's text: attempts, ways back, repetition."""

import pytest

from rltoolkit.errors import DataError
from rltoolkit.rlsp.watch.signs import PHRASES, Backtracking

SEARCH = "5+2=7,7+3=10?16 no\n5-3=2,2*8=16?16 No.\n5+2=7,7+3=10?16 no\n5+3=8,8*2=16?16 ok\n\\boxed{(5+3)*2}"


def phrases(text, **options):
    return Backtracking(**options).signs(text).phrases


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Wait, that is 15. WAIT!", 2),
        ("The waiter awaits; await no wait_time", 0),  # whole words
        ("let me double-check, let  me\ndouble check", 2),
        ("Let\u2019s try 5. let's try 6", 2),
        ("let me try again", 1),  # of what overlaps, the longest, once
        ("Alternatively, hold on", 2),
    ],
)
def test_phrases_are_whole_words_in_any_spelling(text, count):
    assert phrases(text) == count


def test_every_phrase_of_the_list_is_found_once():
    for phrase in PHRASES:
        assert phrases(f"So {phrase.capitalize()}: yes") == 1, phrase


def test_phrases_of_another_language():
    german = Backtracking(phrases=["Moment", "noch einmal"], misses=["falsch"])
    signs = german.signs("3+5=8 falsch\nMoment, noch einmal. wait\n\\boxed{8}")
    assert (signs.phrases, signs.after_miss) == (2, 1)
    assert phrases("wait", phrases=[]) == 0


def test_of_phrases_that_overlap_the_longest_counts():
    assert phrases("let me try again", phrases=["let me", "let me try", "try again"]) == 1


def test_a_script_without_spaces_has_its_words_inside_others():
    assert (
        phrases(
            "\u6211\u4eec\u7b49\u7b49\u518d\u8bd5\u4e00\u6b21\u5427",
            phrases=["\u7b49\u7b49", "\u518d\u8bd5\u4e00\u6b21"],
        )
        == 2
    )


def test_signs_of_characters_that_mean_something_to_patterns():
    assert phrases("was? (nein)", phrases=["(nein)", "was?"]) == 2
    assert phrases("3+5=8", phrases=["="]) == 1
    assert Backtracking(misses=["✗"]).signs("3+5=8 ✗\n4+4=8 ok\n\\boxed{8}").after_miss == 1


@pytest.mark.parametrize("phrases", ["wait", [""], ["  "], [None]])
def test_what_is_no_list_of_texts_is_refused(phrases):
    with pytest.raises(DataError, match=r"phrases is .*; give a list of texts"):
        Backtracking(phrases=phrases)


def test_an_attempt_after_a_miss_is_a_way_back():
    signs = Backtracking().signs(SEARCH)
    assert signs.distinct_attempts == 3
    assert signs.after_miss == 3
    assert signs.backtracked
    assert signs.repetition > 0.2


def test_a_miss_at_the_end_is_no_way_back():
    signs = Backtracking().signs("5+2=7,7+3=10?16 no\n\\boxed{5}")
    assert signs.after_miss == 0
    assert not signs.backtracked


def test_a_hit_is_no_miss():
    assert Backtracking().signs("5+3=8 ok\nno matter\n3+5=8 ok\n\\boxed{8}").after_miss == 0
