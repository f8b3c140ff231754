"""RLSP: PPO with a critic on an outcome reward and an exploration reward (Ye et al., arXiv 2502.06773)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rltoolkit.rlsp.advantages import gae
    from rltoolkit.rlsp.config import RLSPConfig
    from rltoolkit.rlsp.rewards.reward import decoupled_reward, paper_reward
    from rltoolkit.rlsp.trainer import RLSPTrainer

__all__ = ["RLSPConfig", "RLSPTrainer", "decoupled_reward", "gae", "paper_reward"]

_HOMES = {
    "RLSPConfig": "config",
    "RLSPTrainer": "trainer",
    "decoupled_reward": "rewards.reward",
    "gae": "advantages",
    "paper_reward": "rewards.reward",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the pure functions need torch alone, and `import rltoolkit.rlsp` needs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
