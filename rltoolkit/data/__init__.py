"""Data on the way from a file to a Trainer: reading rows, prompts with references, demonstrations, tokenizers."""
