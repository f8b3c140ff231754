"""What RLSP remembers in checkpoints: what may be missing when a run goes on from one, and what must not."""

import copy
import json

import pytest

from rltoolkit.errors import ModelError
from rltoolkit.rlsp.state import load_state, save_state


class Part:
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def parts(*names, state=None):
    return {name: Part(state) for name in names}


def test_every_part_gets_what_it_had(tmp_path):
    saved = {"hacking_alarm": Part({"a": 1}), "prompt_curriculum": Part([2])}
    save_state(tmp_path, saved)
    loaded = parts(*saved)
    load_state(tmp_path, loaded)
    assert [part.state for part in loaded.values()] == [{"a": 1}, [2]]


@pytest.mark.parametrize("name", ["prompt_curriculum", "exploration_weight"])
def test_what_steers_training_must_be_there(tmp_path, name):
    """Without the file the settings may be the same all the same, and the message must not say otherwise."""
    loaded = parts("hacking_alarm", name)
    with pytest.raises(ModelError, match=f"rlsp_state.json does not exist, so there is no state of '{name}', .*") as it:
        load_state(tmp_path, loaded)
    assert "one with save_only_model, or of an older version" in str(it.value)
    save_state(tmp_path, parts("hacking_alarm"))
    with pytest.raises(ModelError, match=f"has no state of '{name}', which .* of a run with other settings"):
        load_state(tmp_path, loaded)


def test_what_only_watches_begins_anew_with_one_line(tmp_path, caplog):
    loaded = parts("hacking_alarm", "unscorable_rollouts", state="fresh")
    load_state(tmp_path, loaded)
    assert [part.state for part in loaded.values()] == ["fresh", "fresh"]
    assert len(caplog.records) == 1
    assert "does not exist, so there is no state of 'hacking_alarm', 'unscorable_rollouts'" in caplog.text


def test_a_checkpoint_of_before_there_was_such_a_file_is_resumed(make_trainer, policy, tmp_path, caplog):
    make_trainer(model=copy.deepcopy(policy), max_steps=2, save_strategy="steps", save_steps=2).train()
    checkpoint = tmp_path / "out" / "checkpoint-2"
    assert json.loads((checkpoint / "rlsp_state.json").read_text()).keys() == {"hacking_alarm", "unscorable_rollouts"}
    (checkpoint / "rlsp_state.json").unlink()
    resumed = make_trainer(max_steps=4)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 4
    assert "it begins anew" in caplog.text


def test_a_checkpoint_of_the_model_only_is_resumed(make_trainer, policy, tmp_path):
    make_trainer(
        model=copy.deepcopy(policy), max_steps=2, save_strategy="steps", save_steps=2, save_only_model=True
    ).train()
    resumed = make_trainer(max_steps=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert resumed.state.global_step == 4
