"""Makes the verifiers of these tests importable, here and in the worker processes of a pool."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# The same examples at every run, and no verdict on time: the machine may be shared.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")
