"""Verifiers, exploration rewards and oracles: text in, judgement out."""
