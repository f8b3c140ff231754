"""Samples from a pool of vLLM servers over HTTP; vLLM itself is not needed here."""
