"""What oracles and critics share when they run a model themselves: texts to tokens, batches, one reading each.

Importing this package loads no torch; `local_models.forward` and `local_models.labels` need it.
"""
