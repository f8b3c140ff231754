"""The names of PEFT and transformers that the critic's adapter leans on, so that an upgrade fails here and loudly."""

import inspect

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def test_a_wrapped_layer_gives_the_layer_below_it():
    assert list(inspect.signature(BaseTunerLayer.get_base_layer).parameters) == ["self"]
    assert "self.original_module" in inspect.getsource(ModulesToSaveWrapper.__mro__[1].__init__)


def test_a_block_is_checkpointed_by_a_function_of_its_own():
    """`LoraCritic` puts another one in its place, which remembers who asked."""
    assert "self._gradient_checkpointing_func(partial(" in inspect.getsource(GradientCheckpointingLayer.__call__)
    setter = inspect.getsource(PreTrainedModel._set_gradient_checkpointing)
    assert 'setattr(module, "_gradient_checkpointing_func", gradient_checkpointing_func)' in setter
