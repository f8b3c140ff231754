import torch

from rltoolkit.rollout import weights as weights_module
from rltoolkit.rollout.weights import content_fingerprint, policy_state, state_fingerprint


def test_a_fingerprint_changes_with_every_bit_and_every_place(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    for dtype, size in [(torch.float32, (9, 7)), (torch.bfloat16, (5, 3)), (torch.float64, (4, 4)), (torch.int8, (3,))]:
        x = torch.randint(-99, 99, size, generator=generator).to(dtype)
        moved = [x.flip(0), x.roll(1), -x, torch.ones_like(x), torch.full_like(x, 2), torch.zeros_like(x)]
        flat = x.flatten()
        for i in range(len(flat)):
            one = flat.clone()
            one[i] += 1
            moved.append(one.view(size))
        numbers = [int(content_fingerprint(t)) for t in [x, *moved]]
        assert len(set(numbers)) == len(numbers)
        assert int(content_fingerprint(x.clone())) == numbers[0]
        assert int(content_fingerprint(torch.cat([x, x])[len(x) :])) == numbers[0]  # a part of another tensor
        monkeypatch.setattr(weights_module, "FINGERPRINT_WORDS", 2)
        assert [int(content_fingerprint(t)) for t in [x, *moved]] == numbers  # in pieces
        monkeypatch.undo()
    assert int(content_fingerprint(torch.empty(0))) == 0


def test_a_fingerprint_of_a_policy_is_of_names_shapes_and_contents(tiny_model):
    state = policy_state(tiny_model())
    print_ = state_fingerprint(state)
    assert state_fingerprint(policy_state(tiny_model())) == print_
    swapped = state | {
        "model.layers.0.mlp.up_proj.weight": state["model.layers.0.mlp.gate_proj.weight"],
        "model.layers.0.mlp.gate_proj.weight": state["model.layers.0.mlp.up_proj.weight"],
    }
    other = state | {"lm_head.weight": state["lm_head.weight"].flip(0)}
    reshaped = state | {"lm_head.weight": state["lm_head.weight"].view(16, 64)}
    assert len({print_, *map(state_fingerprint, (swapped, other, reshaped))}) == 4
