"""The rewards of RLSP: what is asked of reward functions, and what becomes of their answers."""
