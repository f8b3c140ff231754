"""What a run is given before its first phase."""

from datetime import timedelta
from pathlib import Path

import pytest

from rltoolkit.phases import prepare_run, setting
from rltoolkit.recipe import load_recipe

QUICKSTART = Path(__file__).parents[3] / "recipes" / "rlsp" / "quickstart.yaml"


@pytest.mark.parametrize(("overrides", "seconds"), [([], 1800), (["train.ddp_timeout=77"], 77)])
def test_the_processes_wait_for_each_other_as_long_as_the_recipe_says(monkeypatch, tmp_path, overrides, seconds):
    """The Trainer comes too late to say it: the group of processes is there by then."""
    asked, state = [], setting.PartialState
    monkeypatch.setattr(setting, "PartialState", lambda **given: asked.append(given) or state(**given))
    prepare_run(load_recipe(QUICKSTART, [f"output_dir={tmp_path}", *overrides]))
    assert asked[0]["timeout"] == timedelta(seconds=seconds)
