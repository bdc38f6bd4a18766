"""How a command ends: an explained error is one sentence and an exit status."""

from __future__ import annotations

from collections.abc import Callable

from fastload.console.interrupt import take_back
from fastload.console.terminal import say
from fastload.errors import FastloadError, shortage_of
from fastload.files import explain_os_error


def run_command(name: str, body: Callable[[], int]) -> int:
    """Run the body of a command; turn an explained error into one sentence and an exit status.

    Args:
        name: The command as the user typed it, such as "fastload.shard" or "fastload shard".
        body: Does the work and returns the exit status.

    Returns:
        The exit status of the body; 1 after an explained error; 130 after Ctrl-C.
    """
    take_back()
    try:
        return body()
    except KeyboardInterrupt:
        say("", f"{name}: stopped by Ctrl-C", error=True)
        return 130
    except OSError as error:
        say(f"{name}: {explain_os_error(error)}", error=True)
        return 1
    except FastloadError as error:
        say(f"{name}: {error}", error=True)
        return 1
    except (MemoryError, RuntimeError) as error:
        words = shortage_of(error)
        if not words:
            raise
        say(f"{name}: {words}", error=True)
        return 1
