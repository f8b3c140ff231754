"""What runs inside vLLM's worker. A server gets this folder on its PYTHONPATH, not the toolkit: see the module."""
