"""Whether what is printed is read in a notebook, and whether that can draw a bar."""

from __future__ import annotations

import sys


def draws_bars() -> bool:
    """Whether this process is the kernel of a notebook, and ipywidgets is there to draw with."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if "IPKernelApp" not in getattr(shell, "config", {}):  # a shell in a terminal has none
        return False
    try:
        import ipywidgets  # noqa: F401  tqdm draws with it
    except ImportError:
        return False
    return True
