"""rltoolkit: post-training methods as Trainer subclasses on TRL."""

from rltoolkit.version import __version__

__all__ = ["__version__"]
