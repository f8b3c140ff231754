"""Answers on disk: all or nothing, also with several processes."""

import multiprocessing
from pathlib import Path

import pytest

from reward_models import VerifierError
from reward_models.judge.cache import AnswerCache, KeptAnswer, content_key

KEY = content_key({"question": 1})
ANSWER = KeptAnswer("text \u00e9\u2028", 100, None)


def test_what_is_put_is_got(tmp_path):
    cache = AnswerCache(tmp_path / "new" / "folder")
    assert cache.get(KEY) is None
    cache.put(KEY, ANSWER)
    assert AnswerCache(tmp_path / "new" / "folder").get(KEY) == ANSWER
    assert cache.get(content_key({"question": 2})) is None


def test_a_key_depends_on_the_content_and_not_on_its_order():
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert len({content_key(parts) for parts in ({"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": None}, {"b": 1})}) == 5


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff", b"[]", b"null", b'{"format": 1}', b"[" * 100_000],
)
def test_a_damaged_entry_counts_as_absent(tmp_path, damage):
    cache = AnswerCache(tmp_path)
    cache.put(KEY, ANSWER)
    [entry] = tmp_path.rglob("*.json")
    entry.write_bytes(damage)
    assert cache.get(KEY) is None
    cache.put(KEY, ANSWER)
    assert cache.get(KEY) == ANSWER


@pytest.mark.parametrize(
    ("found", "other"), [('"format": 1', '"format": 2'), (KEY, "0" * 64), ('"text": "text', '"words": "text')]
)
def test_an_entry_of_another_form_or_key_counts_as_absent(tmp_path, found, other):
    cache = AnswerCache(tmp_path)
    cache.put(KEY, ANSWER)
    [entry] = tmp_path.rglob("*.json")
    whole = entry.read_text()
    assert found in whole
    entry.write_text(whole.replace(found, other))
    assert cache.get(KEY) is None


def test_a_failed_write_leaves_the_old_entry_and_no_rubbish(tmp_path, monkeypatch):
    cache = AnswerCache(tmp_path)
    cache.put(KEY, ANSWER)

    def full(self: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        cache.put(KEY, KeptAnswer("other", 1, 1))
    assert cache.get(KEY) == ANSWER
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VerifierError, match=r"judge.cache_dir is '.*file', which cannot be written to"):
        AnswerCache(tmp_path / "file")


def write_many(folder: str, letter: str) -> None:
    cache = AnswerCache(folder)
    for _ in range(200):
        cache.put(KEY, KeptAnswer(letter * 20_000, 1, 1))


def test_several_processes_may_write_one_entry(tmp_path):
    cache = AnswerCache(tmp_path)
    cache.put(KEY, KeptAnswer("a" * 20_000, 1, 1))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(str(tmp_path), letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        kept = cache.get(KEY)
        assert kept is not None, "a reader saw half an entry"
        seen.add((kept.text[0], len(kept.text), len(set(kept.text))))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen <= {("a", 20_000, 1), ("b", 20_000, 1)}
