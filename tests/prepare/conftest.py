"""What the tests of preparation share."""

from __future__ import annotations

import pytest

from fastload.pixels import native


@pytest.fixture(params=["native", "pillow"])
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the native core and without: rules and verdicts are the same on both paths."""
    if request.param == "pillow":
        monkeypatch.setattr(native, "is_available", lambda: False)
    elif not native.is_available():
        pytest.skip(f"needs the native core: {native.why_unavailable()}; run scripts/setup")
    return str(request.param)
