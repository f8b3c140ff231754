"""The prompt curriculum: what visits say of a prompt, what an epoch skips, what a rollout weighs."""

import copy
import itertools
import math
from collections import Counter

import pytest
import torch
from datasets import Dataset

from rltoolkit.errors import DataError
from rltoolkit.rlsp import RLSPConfig
from rltoolkit.rlsp.curriculum import MOST_TURNS, PromptCurriculum, Standing, content_key, standing_of

NAN = float("nan")


@pytest.fixture
def make(tmp_path):
    """A curriculum over so many prompts; options go to RLSPConfig."""

    def build(count=12, rows=None, reference="answer", **options):
        settings = {"prompt_curriculum": "skip", "curriculum_visits": 2, "curriculum_revisit": 1000, **options}
        config = RLSPConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[], **settings)
        rows = [{"prompt": f"p{n}", "answer": str(n)} for n in range(count)] if rows is None else rows
        curriculum = PromptCurriculum(config, Dataset.from_list(rows), reference)
        curriculum.rows, curriculum.keys = rows, [curriculum.key(row) for row in rows]
        return curriculum

    return build


def settle(curriculum, rows, rate=1.0, visits=2):
    for _ in range(visits):
        curriculum.record([curriculum.keys[row] for row in rows], [rate] * len(rows))


def epoch_of(curriculum, epoch):
    """Which row stands in each slot."""
    curriculum.begin_epoch(epoch)
    swaps = curriculum.replacements()
    return [swaps.get(row, row) for row in range(len(curriculum.rows))]


@pytest.mark.parametrize(
    ("rates", "standing"),
    [
        ((), "active"),
        ((1.0,), "active"),
        ((1.0, 1.0), "solved"),
        ((0.0, 0.0), "unsolved"),
        ((0.0, 1.0), "active"),
        ((0.5, 1.0), "active"),
        ((0.0, 1.0, 1.0), "solved"),
        ((1.0, 1.0, 0.0), "active"),
    ],
)
def test_the_last_visits_decide(rates, standing):
    assert standing_of(rates, visits=2) == Standing(standing)


def test_keys_follow_the_content_of_prompt_and_reference_alone():
    chat = [{"role": "user", "content": "2+2?"}]
    keys = [content_key("a", "1"), content_key("a", "2"), content_key("b", "1"), content_key(chat, "4")]
    assert len(set(keys)) == 4
    assert content_key(copy.deepcopy(chat), "4") == keys[3]
    assert content_key("a", "1") == 0x3343590635D7675B  # as it was when checkpoints were written with it
    assert all(0 <= key < 1 << 63 for key in keys)


def test_what_json_cannot_hold_is_no_prompt():
    with pytest.raises(DataError, match="set prompt_curriculum to 'off'"):
        content_key([{"role": "user", "content": object()}])


def test_a_visit_is_the_mean_of_what_could_be_judged(make):
    curriculum = make(curriculum_visits=1)
    first, second, third = curriculum.keys[:3]
    curriculum.record([first, first, second, second, third], [1.0, NAN, 1.0, 0.0, NAN])
    assert curriculum.standing(first) is Standing.SOLVED  # its other response says nothing
    assert curriculum.standing(second) is Standing.ACTIVE
    assert curriculum.standing(third) is Standing.ACTIVE  # not visited yet
    assert curriculum.metrics() == {
        "curriculum/solved": 1 / 12,
        "curriculum/unsolved": 0.0,
        "curriculum/active": 11 / 12,
    }


def test_shares_add_up_and_follow_a_change_of_mind(make):
    curriculum = make()
    settle(curriculum, [0, 1, 2], rate=0.0)
    settle(curriculum, [3], rate=1.0)
    assert [round(12 * share) for share in curriculum.metrics().values()] == [1, 3, 8]
    curriculum.record([curriculum.keys[0]], [1.0])
    assert [round(12 * share) for share in curriculum.metrics().values()] == [1, 2, 9]


def test_equal_rows_are_one_prompt(make):
    rows = [{"prompt": "same", "answer": "1"}] * 3 + [{"prompt": "other", "answer": "1"}]
    curriculum = make(rows=rows, curriculum_visits=1)
    curriculum.record(curriculum.keys[:1], [1.0])
    assert curriculum.metrics()["curriculum/solved"] == 0.5
    assert epoch_of(curriculum, 0) == [3, 3, 3, 3]


@pytest.mark.parametrize("outcome", [1.5, -0.1, math.inf])
def test_an_outcome_that_is_no_rate_is_refused(make, outcome):
    with pytest.raises(DataError, match=f"an outcome is {outcome}; the prompt curriculum takes outcomes as rates"):
        make().record([1], [outcome])


@pytest.mark.parametrize(("outcome", "standing"), [(1.0000001, "solved"), (0.9999999, "solved"), (-1e-7, "unsolved")])
def test_rounding_does_not_keep_a_prompt_from_being_settled(make, outcome, standing):
    curriculum = make()
    settle(curriculum, [0], rate=outcome)
    assert curriculum.standing(curriculum.keys[0]) == standing


def test_an_epoch_keeps_its_length_and_skips_what_is_settled(make):
    curriculum = make()
    settle(curriculum, [0, 1], rate=1.0)
    settle(curriculum, [2], rate=0.0)
    turns = Counter(epoch_of(curriculum, 0))
    assert turns.total() == 12
    assert not turns.keys() & {0, 1, 2}
    assert set(turns) == set(range(3, 12))
    assert max(turns.values()) == 2  # three others came twice, none of them three times


def test_who_takes_the_places_depends_on_seed_and_epoch_alone(make):
    def drawn(seed, epoch):
        curriculum = make(seed=seed)
        settle(curriculum, range(6))
        return epoch_of(curriculum, epoch)

    assert drawn(0, 1) == drawn(0, 1)
    assert len({tuple(drawn(seed, epoch)) for seed, epoch in itertools.product((0, 1), (0, 1, 2))}) == 6


def test_few_active_prompts_do_not_rule_an_epoch(make):
    curriculum = make(40)
    settle(curriculum, range(38))
    turns = Counter(epoch_of(curriculum, 0))
    assert turns[38] == turns[39] == MOST_TURNS
    assert turns.total() == 40
    assert len(turns) == 40 - 2 * (MOST_TURNS - 1)  # the slots that were left kept their prompts, once each


def test_all_prompts_are_visited_again_where_none_is_left(make, caplog):
    curriculum = make()
    settle(curriculum, range(12))
    assert epoch_of(curriculum, 3) == list(range(12))
    assert "epoch 3: all 12 prompts are solved always or never" in caplog.text


def test_a_skipped_prompt_comes_back_once_in_so_many_epochs(make):
    curriculum = make(60, curriculum_revisit=3)
    settle(curriculum, range(30))
    back = [set(epoch_of(curriculum, epoch)) & set(range(30)) for epoch in range(6)]
    assert back[:3] == back[3:]
    assert set.union(*back[:3]) == set(range(30))
    assert sum(map(len, back[:3])) == 30  # each once
    assert all(back[:3])  # not all of them in the same epoch


def test_a_prompt_that_changed_its_mind_while_it_was_back_stays(make):
    curriculum = make()
    settle(curriculum, range(6))
    curriculum.record(curriculum.keys[:1], [0.0])
    assert epoch_of(curriculum, 0).count(0) >= 1


def test_an_epoch_is_decided_at_its_beginning_and_remembered(make):
    curriculum = make()
    settle(curriculum, [0, 1])
    before = epoch_of(curriculum, 2)
    settle(curriculum, [5, 6])
    resumed = make()
    resumed.load_state_dict(curriculum.state_dict())
    assert epoch_of(resumed, 2) == before
    assert epoch_of(resumed, 3) == epoch_of(curriculum, 3) != before


def test_state_outlives_another_order_of_the_data_and_a_shorter_window(make):
    curriculum = make()
    settle(curriculum, [0, 1])
    other = make(rows=curriculum.rows[::-1][:11], curriculum_visits=1)  # row 0 is gone
    other.load_state_dict(curriculum.state_dict())
    assert [other.standing(key) for key in (curriculum.keys[1], curriculum.keys[0])] == ["solved", "active"]
    assert other.metrics()["curriculum/solved"] == 1 / 11


def test_a_checkpoint_replaces_the_visits_since(make):
    """A trainer that goes back to an earlier checkpoint of its own."""
    curriculum = make()
    before = curriculum.state_dict()
    settle(curriculum, [0, 1])
    curriculum.load_state_dict(before)
    assert curriculum.metrics()["curriculum/active"] == 1.0
    assert curriculum.state_dict() == before


def test_weights_come_from_the_visits_before(make):
    curriculum = make(prompt_curriculum="down_weight", curriculum_visits=1, curriculum_revisit=4, curriculum_weight=0.5)
    rows = curriculum.rows[:3]
    weights = [
        curriculum.take_in(rows, torch.tensor(outcomes), lambda mine: mine).tolist()
        for outcomes in ([1.0, 0.0, 0.5], [0.0, 0.0, NAN], [1.0, 1.0, 1.0])
    ]
    assert weights == [[1.0, 1.0, 1.0], [0.5, 0.5, 1.0], [0.5, 0.5, 1.0]]
    curriculum.begin_epoch(0)
    assert curriculum.replacements() == {}  # nothing is skipped in this mode


def test_skipping_weighs_nothing_down(make):
    curriculum = make(curriculum_visits=1)
    settle(curriculum, [0])
    assert curriculum.take_in(curriculum.rows[:2], torch.ones(2), lambda mine: mine).tolist() == [1.0, 1.0]


def test_every_rank_hears_of_all_responses(make):
    """Two ranks of two responses each; `gather` is what the accelerator does."""
    curriculum = make(curriculum_visits=1)
    theirs = {torch.int64: torch.tensor(curriculum.keys[2:4]), torch.float32: torch.tensor([0.0, 1.0])}
    curriculum.take_in(curriculum.rows[:2], torch.ones(2), lambda mine: torch.cat([mine, theirs[mine.dtype]]))
    assert [curriculum.standing(key) for key in curriculum.keys[:5]] == ["solved"] * 2 + [
        "unsolved",
        "solved",
        "active",
    ]


# ---- in the trainer -------------------------------------------------------------------------------------------------


def by_prompt(prompts, completions, **_):
    """What the first number of the prompt says, whatever the answer: 2 is always solved, 3 never, others half."""
    return [{"2": 1.0, "3": 0.0}.get(prompt[0], 0.5) for prompt in prompts]


@pytest.fixture
def kinds():
    """Four prompts that are always solved, four that never are, eight in between."""
    return Dataset.from_list([{"prompt": f"{kind},{n},1>9\n", "answer": "9"} for kind in "2345" for n in range(2, 6)])


@pytest.mark.parametrize("advantage_weight", [0.0, 0.5])
def test_the_policy_learns_less_from_settled_prompts_and_the_critic_does_not(make_trainer, kinds, advantage_weight):
    trainer = make_trainer(
        outcome=by_prompt, dataset=kinds, prompt_curriculum="down_weight", curriculum_visits=1,
        curriculum_weight=advantage_weight, whiten_advantages=False, kl_coef=0.0,
    )  # fmt: skip
    trainer.model.train()
    rollouts = []
    for _ in range(2):
        torch.manual_seed(0)
        rollouts.append(trainer._generate_and_score_completions([kinds[i] for i in range(16)]))
    first, rollout = rollouts
    expected = first["advantages"].clone()
    expected[:8] *= advantage_weight
    torch.testing.assert_close(rollout["advantages"], expected, rtol=0, atol=0)
    assert torch.equal(rollout["returns"], first["returns"])


def test_an_evaluation_is_no_visit(make_trainer, kinds):
    trainer = make_trainer(outcome=by_prompt, dataset=kinds, prompt_curriculum="skip", curriculum_visits=1)
    trainer.model.eval()
    trainer._generate_and_score_completions([kinds[i] for i in range(8)])
    assert trainer.curriculum.metrics()["curriculum/active"] == 1.0


def test_a_training_leaves_settled_prompts_out_from_the_epoch_after(make_trainer, kinds):
    seen = []

    def outcome(prompts, completions, trainer_state, **_):
        seen.extend((trainer_state.global_step, prompt) for prompt in prompts)
        return by_prompt(prompts, completions)

    trainer = make_trainer(
        outcome=outcome, dataset=kinds, prompt_curriculum="skip", curriculum_visits=1, curriculum_revisit=1000,
        max_steps=12,
    )  # fmt: skip
    trainer.train()
    epochs = [[prompt for step, prompt in seen if step // 4 == epoch] for epoch in range(3)]  # 2 rollouts of 8 each
    assert Counter(prompt[0] for prompt in epochs[0]) == {"2": 4, "3": 4, "4": 4, "5": 4}
    assert len(epochs[1]) == len(epochs[2]) == 16
    assert {prompt[0] for prompt in epochs[1] + epochs[2]} == {"4", "5"}
    shares = [line["curriculum/solved"] for line in trainer.state.log_history if "curriculum/solved" in line]
    assert shares[-1] == 4 / 16


def test_a_stream_of_prompts_has_no_curriculum(make_trainer, kinds):
    with pytest.raises(DataError, match="IterableDataset, whose prompts cannot be visited by choice"):
        make_trainer(outcome=by_prompt, dataset=kinds.to_iterable_dataset(), prompt_curriculum="skip")


def test_options_that_nothing_reads_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"curriculum_weight is 0\.5 with prompt_curriculum 'skip'") as caught:
        RLSPConfig(
            str(tmp_path), use_cpu=True, bf16=False, report_to=[], prompt_curriculum="skip", curriculum_weight=0.5,
            curriculum_revisit=1,
        )  # fmt: skip
    assert "curriculum_revisit is 1; give a number >= 2" in str(caught.value)
