"""The run folder: manifest and phases, metrics, samples, plots, versions and the model card.

Nothing here imports torch or transformers at import time, except `callback` and `resume`, which work on a
Trainer.
"""
