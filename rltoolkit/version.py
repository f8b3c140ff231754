"""The version of the distribution, in one place (semantic versioning)."""

__version__ = "0.1.0"
