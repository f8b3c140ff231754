"""Can the hub be reached? Its libraries try for minutes before they give up, and a check should not wait for that."""

from __future__ import annotations

import os
import sys
import threading
import urllib.error
import urllib.request

DEFAULT_ENDPOINT = "https://huggingface.co"
PATIENCE_S = 4.0


def use_hub_or_cache(patience_s: float = PATIENCE_S) -> bool:
    """Whether hub names can be looked up now: on the hub, or, where it is out of reach, in the local cache.

    Out of reach, the hub's libraries are told to stay offline, if they are not imported yet. Where they are, and were
    not told before, False says to leave hub names alone.
    """
    if _told_to_stay_offline() or hub_reachable(patience_s):
        return True
    if "huggingface_hub" in sys.modules:
        return False
    os.environ["HF_HUB_OFFLINE"] = "1"
    return True


def hub_reachable(patience_s: float = PATIENCE_S) -> bool:
    """Whether the hub answers within the patience; proxies of the environment are used."""
    answered = threading.Event()
    endpoint = os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT)

    def ask() -> None:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")
            urllib.request.urlopen(request, timeout=patience_s).close()
        except urllib.error.HTTPError:
            answered.set()  # an answer all the same
        except (OSError, ValueError):
            return
        answered.set()

    # A thread, because looking up the name is not bound by the timeout; it holds nothing and ends by itself.
    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(patience_s)


def _told_to_stay_offline() -> bool:
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:
        return bool(getattr(hub, "HF_HUB_OFFLINE", False))
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
