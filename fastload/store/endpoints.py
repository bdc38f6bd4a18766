"""The endpoint of a store, looked at before the client takes it.

The client of obstore 0.12 panics at one that is no URL, and prints a Rust trace for each try.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fastload.arguments import shown

# What stands before the names in the environment, and the names, which options have without it too.
_S3 = ("AWS_", ("endpoint_url_s3", "endpoint_url", "endpoint"))
_GOOGLE = ("GOOGLE_", ("base_url",))
_AZURE = ("AZURE_", ("endpoint", "storage_endpoint"))
_OF_SCHEMES = {"s3": _S3, "gs": _GOOGLE, "az": _AZURE, "abfs": _AZURE, "abfss": _AZURE}


def why_no_endpoint(address: str, options: Mapping[str, Any]) -> str | None:
    """What is wrong with the endpoint that the client would use for an address.

    Args:
        address: SCHEME://BUCKET/PREFIX.
        options: obstore's, which count before the environment.

    Returns:
        What was found and what to do; None where there is no endpoint, or a URL.
    """
    prefix, names = _OF_SCHEMES.get(address.partition("://")[0].lower(), ("", ()))
    given = {key.lower().removeprefix(prefix.lower()): value for key, value in options.items()}
    environment = {name: os.environ.get(f"{prefix}{name.upper()}") for name in names}
    for source, found in (("storage_options", given), ("the environment", environment)):
        value = next((found[name] for name in names if found.get(name)), None)
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
