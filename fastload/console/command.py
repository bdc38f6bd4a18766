"""How a command ends: an explained error is one sentence and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from fastload.errors import FastloadError
from fastload.files import explain_os_error


def run_command(name: str, body: Callable[[], int]) -> int:
    """Run the body of a command; turn an explained error into one sentence and an exit status.

    Args:
        name: The command as the user typed it, such as "fastload.shard".
        body: Does the work and returns the exit status.

    Returns:
        The body's status; 1 after an explained error, 130 after Ctrl-C, 0 where a pipe was closed.
    """
    try:
        return body()
    except KeyboardInterrupt:
        print(f"\n{name}: stopped by Ctrl-C", file=sys.stderr)  # noqa: T201  a command's own words
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"{name}: {explain_os_error(error)}", file=sys.stderr)  # noqa: T201
        return 1
    except FastloadError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201
        return 1
