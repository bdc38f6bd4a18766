"""Builds the C++ core (native/) into fastload/pixels/_core.so; all else is in pyproject.toml.

The core is plain C ABI, loaded with ctypes, so one build serves every Python version. Where there
is no C++ compiler the build is skipped with a warning and fastload runs on libjpeg-turbo instead.
"""

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools < 70.1
    from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).parent
SOURCES = sorted(str(path.relative_to(HERE)) for path in (HERE / "native").glob("*.cpp"))
HEADERS = sorted(str(path.relative_to(HERE)) for path in (HERE / "native").rglob("*.hpp"))


class BuildCore(build_ext):
    """Build `_core` under a name without a Python version: it holds no Python symbols."""

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext):
        return ext.export_symbols


class PlatformWheel(bdist_wheel):
    """Tag the wheel py3-none-PLATFORM: any Python 3, this platform."""

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


def core():
    flags = ["-std=c++17", "-O3", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"]
    links = [] if sys.platform == "darwin" else ["-static-libgcc"]
    return Extension(
        "fastload.pixels._core",
        sources=SOURCES,
        depends=HEADERS,
        include_dirs=["native"],
        extra_compile_args=[*flags, "-Wall", "-Wextra"],
        extra_link_args=links,
        optional=True,
        language="c++",
    )


supported = sys.platform in {"linux", "darwin"} and platform.python_implementation() == "CPython"
setup(
    ext_modules=[core()] if SOURCES and supported else [],
    cmdclass={"build_ext": BuildCore, "bdist_wheel": PlatformWheel},
)
