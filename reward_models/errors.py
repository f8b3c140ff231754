"""The root of the one tree of errors, and the errors of this package."""


class RLToolkitError(Exception):
    """Base of every error that rltoolkit raises for its user."""


class VerifierError(RLToolkitError, ValueError):
    """A verifier or a reward function was set up in a way that cannot work."""
