import json

import pytest

from eval.tasks import load_task
from eval.tasks.gsm8k import DATA_VARIABLE, load_file
from reward_models.verdict import Outcome
from rltoolkit.errors import DataError

ROWS = [
    {"question": "What is 2 + 2? ", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"},
    {"question": "A house costs $70,000 and a car $1,230. Together?", "answer": "Add.\n#### 71,230"},
    {"question": "Ten less twelve?", "answer": "It is #### in debt.\n#### -2"},
]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    return tmp_path


def test_references_are_what_follows_the_mark_without_commas(data, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(data))
    task = load_task("gsm8k")
    assert [question.reference for question in task.questions] == ["4", "71230", "-2"]
    assert [question.id for question in task.questions] == ["line-1", "line-2", "line-3"]
    assert task.questions[0].prompt_text.startswith("What is 2 + 2?\n")
    assert "\\boxed{}" in task.questions[0].prompt_text
    assert task.prompt_format == "chat"
    verdicts = [task.verifier.check(f"so \\boxed{{{q.reference}}}", q.reference) for q in task.questions]
    assert [verdict.outcome for verdict in verdicts] == [Outcome.CORRECT] * 3
    assert task.verifier.check("\\boxed{71,230}", "71230").outcome is Outcome.CORRECT


def test_a_limit_draws_rows_by_seed(data):
    path = data / "gsm8k" / "test.jsonl"
    drawn = {tuple(q.id for q in load_file(path, limit=2, seed=seed).questions) for seed in range(20)}
    assert drawn == {("line-1", "line-2"), ("line-1", "line-3"), ("line-2", "line-3")}
    assert len(load_file(path, limit=99).questions) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: found list"),
        ('{"question": "q"}', r"line 2: found \['question'\]"),
        ('{"question": "q", "answer": 4}', "line 2: found"),
        ('{"question": "q", "answer": "4"}', "line 2: the answer has nothing after '####'"),
        ('{"question": "q", "answer": "####  "}', "line 2: the answer has nothing after '####'"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, line, message):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + line, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_file(path)


def test_missing_data_says_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"set the environment variable {DATA_VARIABLE} to a folder with gsm8k/test"):
        load_task("gsm8k")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"test\.jsonl does not exist"):
        load_task("gsm8k")
