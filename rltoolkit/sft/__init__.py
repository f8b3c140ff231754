"""Supervised fine-tuning on demonstrations: a method of its own, and stage one of others."""
