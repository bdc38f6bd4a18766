"""What a decoder with a bug does; in a module of its own, for worker processes import it."""

from __future__ import annotations

import os
import signal
from typing import Any

from fastload.prepare import examine
from fastload.prepare.source import File
from fastload.prepare.verdict import Verdict

_examine_file = examine.examine_file


def abort_at_007(file: File, **options: Any) -> tuple[Verdict, bytes]:
    """Examine a file, or end the process as a failed `assert` in C does."""
    if file.path.endswith("007.jpg"):
        os.kill(os.getpid(), signal.SIGABRT)
    return _examine_file(file, **options)
