"""Judging a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from reward_models import CountdownVerifier, MathVerifier
from rltoolkit.commands.verify import VerifyRequest, make_verifier, verify_file
from rltoolkit.commands.verify_report import JudgedRow
from rltoolkit.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"completion": "so \\boxed{42}", "gold": "42", "label": True},
    {"completion": "so \\boxed{41}", "gold": "42", "label": False},
    {"completion": "42", "gold": "42", "label": True},
    {"completion": "so \\boxed{7}", "gold": 7, "label": False},
    {"completion": "so \\boxed{7}", "gold": "", "label": 1},
    {"completion": [{"role": "assistant", "content": "\\boxed{1}"}], "gold": "1", "label": 1},
]


@pytest.fixture
def write(tmp_path: Path):
    def write_rows(*rows: Any) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return path

    return write_rows


def request(path: Path, **changes: Any) -> VerifyRequest:
    settings = {"verifier": "math", "response": "completion", "reference": "gold", "label": "label"} | changes
    return VerifyRequest(path, **settings)


def test_counts_and_agreement(write) -> None:
    report = verify_file(request(write(*ROWS)), workers=1)
    expected = {"correct": 3, "wrong": 1, "no_answer": 1, "bad_reference": 1, "timeout": 0, "error": 0}
    assert report.outcomes == expected
    assert (report.rows, report.agree, report.false_positive, report.false_negative) == (6, 3, 1, 2)
    assert report.seconds > 0
    assert "agrees with the label in 3 of 6 rows (50.00 %): 1 false positive, 2 false negative" in report.lines()
    assert report.confusion is not None
    assert {name: tuple(counts.values()) for name, counts in report.confusion.items()} == {
        "correct": (2, 1),
        "wrong": (0, 1),
        "no_answer": (1, 0),
        "bad_reference": (1, 0),
        "timeout": (0, 0),
        "error": (0, 0),
    }
    assert report.verdicts_per_second == pytest.approx(6 / report.seconds)


def test_the_rows_to_look_at(write) -> None:
    report = verify_file(request(write(ROWS[0], "\n", *ROWS[1:])), workers=1)
    assert report.disagreements is not None
    assert [(row.line, row.outcome, row.label) for row in report.disagreements] == [
        (4, "no_answer", True),
        (5, "correct", False),
        (6, "bad_reference", True),
    ]
    assert [row.line for row in report.unscored] == [6]
    lines = "\n".join(report.lines(show=1))
    assert (
        "2 row(s) judged otherwise than labelled, the first 1:\n  line 4: no_answer, label true; reference '42',"
        in lines
    )
    assert "line 5" not in lines
    assert "line 5: correct, label false; reference '7', answer '7' (last box; " in "\n".join(report.lines())
    assert "1 row(s) could not be scored:\n  line 6: bad_reference" in lines
    assert "line" not in "\n".join(report.lines(show=0))


def test_what_no_terminal_can_print_is_escaped(write) -> None:
    row = {"completion": "\\boxed{\ud800\n\x1b[31m}", "gold": "\x1b[2J\ud801", "label": True}
    report = verify_file(request(write(row), verifier="exact"), workers=1)
    assert "\n".join(report.lines()).encode()  # no lone surrogate
    assert "\x1b" not in "\n".join(report.lines())
    row = JudgedRow(1, "a\n", None, "wrong", "because \x1b[31m \ud800\nof it", label=True)
    assert row.text() == r"line 1: wrong, label true; reference 'a\n', answer none (because \x1b[31m \ud800\nof it)"


def test_without_labels_nothing_is_compared(write) -> None:
    report = verify_file(request(write(*ROWS), label=None), workers=1)
    assert (report.agree, report.false_positive, report.false_negative) == (None, None, None)
    assert (report.confusion, report.disagreements) == (None, None)
    assert [row.line for row in report.unscored] == [5]


def test_the_json_has_the_agreed_keys(write, tmp_path: Path) -> None:
    report = verify_file(request(write(*ROWS)), workers=1)
    report.write(tmp_path / "out.json")
    keys = ["rows", "outcomes", "agree", "false_positive", "false_negative", "seconds"]
    written = json.loads((tmp_path / "out.json").read_text())
    assert list(written) == [*keys, "verdicts_per_second", "confusion", "disagreements", "unscored"]
    assert [row["line"] for row in written["disagreements"]] == [3, 4, 5]
    assert list(written["unscored"][0]) == ["line", "reference", "extracted", "outcome", "detail", "label"]
    with pytest.raises(DataError, match="cannot be written"):
        report.write(tmp_path / "none" / "out.json")


def test_options_reach_the_verifier(write) -> None:
    report = verify_file(request(write(*ROWS), options=("extraction=lenient",)), workers=1)
    assert report.outcomes["no_answer"] == 0
    assert make_verifier("math", ["thinking_end=null", "box=first"]).thinking_end is None
    assert isinstance(make_verifier("countdown"), CountdownVerifier)
    assert isinstance(make_verifier("reward_models.math_answers:MathVerifier"), MathVerifier)


def test_options_of_several_kinds() -> None:
    assert make_verifier("numeric", ["rel_tol=1e-3"]).rel_tol == 0.001
    assert make_verifier("exact", ["ignore_case=true", "extraction=whole"]).ignore_case is True
    # what YAML would take for a comment
    assert make_verifier("regex", ["pattern=#### (.+)"]).pattern == "#### (.+)"
    assert make_verifier("regex", ["pattern=is (.+) #"]).pattern == "is (.+) #"
    assert make_verifier("json_schema", ["schema={type: object, required: [a]}"]).check("{}", "").outcome == "wrong"
    both = make_verifier(
        "all_of", ["verifiers=[{verifier: integer}, {verifier: any_of, verifiers: [{verifier: exact}]}]"]
    )
    assert both.check("\\boxed{7}", "7").outcome == "correct"


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("numeric", ["rel_tol=-1"], "rel_tol in --set is -1, expected a value >= 0; relative to the reference"),
        ("numeric", ["rel_toll=1"], "rel_toll in --set: unknown key; did you mean rel_tol?"),
        ("regex", ["pattern=a.b"], "has 0 groups, expected exactly one group"),
        ("regex", ["pattern=[a-z](.)"], "put a text with signs in quotes of its own"),
        ("all_of", [], "verifiers in --set: missing; give a list such as"),
        ("all_of", ["verifiers=[]"], "verifiers in --set is []"),
        ("all_of", ["verifiers=[{verifier: integr}]"], "verifiers.0.verifier in --set is 'integr'"),
        ("any_of", ["verifiers=[{verifier: integer}, {verifier: math, box: 1}]"], "verifiers.1.box in --set is 1"),
        (
            "any_of",
            ["verifiers=[{verifier: 'no_such:Thing'}]"],
            "--set verifiers.0.verifier in the arguments is 'no_such:Thing'",
        ),
        ("json_schema", ["schema={type: objekt}"], "json_schema refuses its options"),
    ],
)
def test_wrong_options(name: str, options: list[str], says: str) -> None:
    with pytest.raises(DataError) as caught:
        make_verifier(name, options)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("maths", [], "did you mean math?"),
        (":Thing", [], "expected math, countdown, "),
        ("package:", [], "or package.module:Class"),
        ("exact", ["verifier=integer"], "--set is 'verifier=integer'; name the verifier with --verifier integer"),
        ("no_such_module:Thing", [], "cannot be imported"),
        ("reward_models:Outcome", [], "refuses"),
        ("rltoolkit.errors:DataError", [], "without check"),
        ("math", ["extraction"], "expected option=value"),
        ("math", ["extracion=boxed"], "extracion in --set: unknown key; did you mean extraction?"),
        (
            "math",
            ["extraction=everything"],
            "extraction in --set is 'everything', expected one of boxed, marked or lenient",
        ),
        ("math", ["extraction=everything", "bx=1"], "bx in --set: unknown key"),
        ("reward_models.math_answers:MathVerifier", ["bx=1"], "it takes extraction, thinking_end, box"),
        ("reward_models.math_answers:MathVerifier", ["box=1"], "MathVerifier box is 1"),
    ],
)
def test_a_verifier_that_cannot_be_made(name: str, options: list[str], says: str) -> None:
    with pytest.raises(DataError) as caught:
        make_verifier(name, options)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "has no rows"),
        (["\n\n"], "has no rows"),
        ([ROWS[0], "{\n"], "line 2 is not JSON"),
        (["3\n"], "line 1 is no object"),
        ([{"completion": "x", "golds": "y", "label": 1}], "did you mean golds?"),
        (["[" * 100_000 + "\n"], "line 1 is not JSON"),
        ([{"completion": "x", "gold": "y", "label": "yes"}], "label is 'yes', expected true, false, 0 or 1"),
        ([{"completion": "x", "gold": "y", "label": None}], "label is None"),
    ],
)
def test_a_file_that_cannot_be_judged(write, rows: list[Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        verify_file(request(write(*rows)), workers=1)
    assert says in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        verify_file(request(tmp_path / "none.jsonl"))
    line = json.dumps(ROWS[0]).encode()
    (tmp_path / "binary.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line.replace(b"so", b"s\xff") + b"\n")
    with pytest.raises(DataError, match="line 2 is not UTF-8 text"):
        verify_file(request(tmp_path / "binary.jsonl"))


def test_a_reference_that_is_no_text_or_number_is_bad(write) -> None:
    rows = [{"completion": f"\\boxed{{{json.dumps(gold)}}}", "gold": gold} for gold in (None, True, ["a"], {"a": 1})]
    report = verify_file(request(write(*rows), verifier="exact", label=None), workers=1)
    assert report.outcomes["bad_reference"] == report.rows == 4
    assert [row.reference for row in report.unscored] == ["null", "true", '["a"]', '{"a": 1}']


def test_a_number_is_judged_as_its_text_however_long(write) -> None:
    digits = "7" * 5000
    rows = [f'{{"completion": "\\\\boxed{{{text}}}", "gold": {text}}}\n' for text in ("0.5", "7", digits[:400], digits)]
    report = verify_file(request(write(*rows), verifier="exact", label=None), workers=1)
    assert report.outcomes["correct"] == report.rows == 4


def test_a_response_that_is_no_text_is_an_error_of_its_row(write) -> None:
    rows = [{"completion": odd, "gold": "1", "label": True} for odd in (None, 3, [3], {"content": "\\boxed{1}"})]
    report = verify_file(request(write(*rows, ROWS[0])), workers=1)
    assert (report.outcomes["error"], report.outcomes["correct"]) == (4, 1)
    assert [(row.line, row.detail) for row in report.unscored][:2] == [
        (1, "the response is NoneType, expected str"),
        (2, "the response is int, expected str"),
    ]
