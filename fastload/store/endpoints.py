"""The endpoint of an S3 server, looked at before the client takes it.

The client of obstore 0.12 panics at one that is no URL, and prints a Rust trace for each try.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fastload.arguments import shown

_NAMES = ("endpoint_url", "endpoint")  # of options and, with AWS_ before them, of the environment


def why_no_endpoint(options: Mapping[str, Any]) -> str | None:
    """What is wrong with the endpoint that the client would use.

    Args:
        options: obstore's, which count before the environment.

    Returns:
        What was found and what to do; None where there is no endpoint, or a URL.
    """
    given = {key.lower().removeprefix("aws_"): value for key, value in options.items()}
    environment = {name: os.environ.get(f"AWS_{name.upper()}") for name in _NAMES}
    for source, found in (("storage_options", given), ("the environment", environment)):
        value = next((found[name] for name in _NAMES if found.get(name)), None)
        if value is None:
            continue
        if not isinstance(value, str) or _is_url(value):
            return None  # a value of another type is refused by the client
        return (
            f"the endpoint in {source} is no URL, got {shown(value)}; give one such as"
            " https://HOST:PORT"
        )
    return None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port or 1
    except ValueError:
        return False
    plain = re.fullmatch(r"[!-~]+", text) is not None
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port > 0
