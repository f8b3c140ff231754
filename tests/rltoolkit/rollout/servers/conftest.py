"""Fixtures of the pool's tests; what the modules of this folder share lies beside this file."""

import sys
from pathlib import Path

import pytest
import torch

from rltoolkit.rollout.servers.backend import ServerOptions, VLLMServerBackend

sys.path.insert(0, str(Path(__file__).parent))  # for standin: pytest does not make test folders importable

from standin import StandIn

EOS = 2


@pytest.fixture
def stand_ins(tiny_model):
    """Return a maker of stand-ins, which start with weights that are not the policy's."""
    made = []

    def make(count=1, **shape):
        made.extend(StandIn(tiny_model(seed=99, dtype=torch.float32, **shape).eval()) for _ in range(count))
        return made[-count:] if count > 1 else made[-1]

    yield make
    for server in made:
        server.die()


@pytest.fixture
def connect(tmp_path):
    """Return a maker of backends on stand-ins, impatient unless told otherwise."""
    made = []

    def make(*servers, **options):
        urls = tuple(server if isinstance(server, str) else server.url for server in servers)
        patience = {"health_timeout_s": 5.0, "wait_s": 10.0, "request_timeout_s": 20.0}
        backend = VLLMServerBackend(ServerOptions(urls=urls, **patience | options), eos_token_ids=[EOS])
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def policy(tiny_model):
    """The policy that is synced: float32, in eval mode."""
    return tiny_model(seed=5, dtype=torch.float32).eval()


@pytest.fixture
def check_logprobs():
    """Return a check that samples were drawn from a model: its own log-probs of the same tokens agree."""

    def check(model, prompts, samples, atol=1e-4):
        for prompt, group in zip(prompts, samples, strict=True):
            for sample in group:
                ids = torch.tensor([[*prompt, *sample.token_ids]])
                with torch.no_grad():
                    logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                own = logprobs.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
                assert torch.allclose(own, torch.tensor(sample.logprobs), atol=atol, rtol=0)

    return check
