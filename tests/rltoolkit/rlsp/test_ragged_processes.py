"""Ranks that divide their minibatches differently wait for nobody, and learn what whole minibatches teach."""

from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("ragged_processes.py")


@pytest.mark.slow
def test_parts_that_differ_between_ranks_make_the_same_update(two_processes, tmp_path):
    first, second = two_processes(SCRIPT, tmp_path)
    for kind in ("separate", "shared"):
        parts, whole = first[f"{kind} parts"], first[f"{kind} whole"]
        assert parts["processes"] == 2
        assert parts["parts"] != second[f"{kind} parts"]["parts"]  # or nothing is shown
        assert set(whole["parts"]) == {1}
        assert parts["weights"] == second[f"{kind} parts"]["weights"]
        assert parts["losses"] == pytest.approx(whole["losses"], rel=1e-3, abs=1e-5)
        for of_critic in (False, True):  # by so much that half of it would show
            assert max(most for name, most in parts["moved"].items() if ("critic." in name) is of_critic) > 1e-4
        for name, weights in parts["weights"].items():
            expected = torch.tensor(whole["weights"][name])
            torch.testing.assert_close(torch.tensor(weights), expected, rtol=1e-6, atol=1e-7)
