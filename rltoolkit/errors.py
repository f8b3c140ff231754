"""The tree of errors above the ground floor; its root is `reward_models.errors.RLToolkitError`."""

from reward_models.errors import RLToolkitError

__all__ = ["DataError", "ModelError", "RLToolkitError", "RolloutError", "RunFolderError"]


class DataError(RLToolkitError, ValueError):
    """A dataset cannot be read, or a row does not have what the recipe asks of it."""


class ModelError(RLToolkitError, ValueError):
    """A model folder cannot serve: no tokenizer, no chat template, or a device that is not there."""


class RolloutError(RLToolkitError, RuntimeError):
    """A rollout backend cannot answer a request."""


class RunFolderError(RLToolkitError, FileExistsError):
    """The output folder holds something that this run must not touch."""
