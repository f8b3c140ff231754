from eval.tasks import load_task
from reward_models.verdict import Outcome
from rltoolkit.embedded.countdown import countdown_rows


def test_it_asks_held_out_problems_in_the_form_of_the_training_prompts():
    task = load_task("countdown", limit=500)
    assert len(task.questions) == 500
    trained = {row["answer"] for row in countdown_rows("train", 3000)}
    assert trained
    assert not trained & {question.reference for question in task.questions}
    assert task.prompt_format == "text"
    assert all(">" in question.prompt_text for question in task.questions)


def test_the_seed_chooses_the_questions():
    ids = [[q.id for q in load_task("countdown", limit=50, seed=seed).questions] for seed in (0, 0, 1)]
    assert ids[0] == ids[1]
    assert set(ids[0]) != set(ids[2])


def test_the_verifier_accepts_demonstrations_that_end_on_a_hit():
    verifier = load_task("countdown", limit=1).verifier
    rows = [row for row in countdown_rows("train", 300) if " ok\n" in row["completion"]]
    assert len(rows) > 100
    assert {verifier.check(row["completion"], row["answer"]).outcome for row in rows} == {Outcome.CORRECT}


def test_attempts_are_the_marked_lines_before_the_answer():
    count = load_task("countdown", limit=1).count_attempts
    assert count is not None
    completions = [row["completion"] for row in countdown_rows("train", 100)]
    assert [count(text) for text in completions] == [text.count("\n") for text in completions]
    assert len({count(text) for text in completions}) > 1
    first = completions[0].splitlines()[0]
    assert count(f"{first}\n5+2") == 1  # cut off within the second attempt
    assert count(f"{first}\n\\boxed{{5+2}}\n{first}\n") == 1  # after the answer nothing is an attempt
