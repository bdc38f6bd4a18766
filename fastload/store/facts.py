"""Facts in JSON that anybody may have written: read within bounds, and checked one by one.

What a file says of types, ranges and names may be wrong, its size may be anything.
"""

from __future__ import annotations

import json
import os
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastload.errors import ShardError, first_line
from fastload.files import open_regular

JSON_BYTES = 64 << 20  # 200 bytes for a shard: 300,000 shards, 80 TB of the default size
MOST_BRACKETS = 1 << 20  # opening ones: one for a shard, some in names; each may be an object
_NAME_BYTES = 255  # the longest file name on Linux and macOS
_Kind = TypeVar("_Kind", dict[str, Any], list[Any], str, int)
_Checked = TypeVar("_Checked")
_KINDS = {dict: "an object", list: "a list", str: "a text", int: "an integer"}


def read_facts(path: Path, *, what: str) -> object:
    """What a file of JSON holds.

    Args:
        path: The file.
        what: What it is expected to be, such as "manifest".

    Raises:
        OSError: If the file cannot be read, or is larger than any such file.
        ValueError: If it is not JSON.
    """
    return parsed_facts(_read_limited(path), what=what, where=os.fspath(path))


def parsed_facts(data: bytes, *, what: str, where: str) -> object:
    """What some bytes of JSON hold; at most JSON_BYTES + 1 of them are needed.

    Raises:
        OSError: If they are more than any such file has.
        ValueError: If they are not JSON.
    """
    _refuse_large(data, what, where)
    try:
        return json.loads(
            data.removeprefix(BOM_UTF8).decode(),
            object_pairs_hook=_object_of,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({first_line(error)})") from None


def checked_facts(
    facts: object,
    check: Callable[[dict[str, Any]], _Checked],
    *,
    version: int,
    where: str | os.PathLike[str],
    remedy: str,
) -> _Checked:
    """What `check` makes of the facts of a file that has a `format_version`.

    Raises:
        ShardError: If they are of another version, or `check` finds one missing or wrong.
    """
    try:
        whole = typed(facts, dict, "the whole")
        found = count_of(whole["format_version"], "format_version")
        if found == version:
            return check(whole)
    except KeyError as error:
        raise ShardError(f"is damaged (it lacks {error}); {remedy}", where=str(where)) from None
    except ValueError as error:
        raise ShardError(f"is damaged ({error}); {remedy}", where=str(where)) from None
    newer = "install a newer fastload, or " if found > version else ""
    raise ShardError(
        f"has format version {found}, this fastload reads {version}; {newer}{remedy}",
        where=str(where),
    )


def to_json(value: object, *, indent: int | None = None) -> bytes:
    """JSON in UTF-8. File names that are not UTF-8 become escapes, which JSON reads back."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "backslashreplace")


def typed(value: Any, kind: type[_Kind], name: str) -> _Kind:  # noqa: ANN401  any value of JSON
    """The value, if it is of that type.

    Raises:
        ValueError: If it is of another.
    """
    if type(value) is not kind:  # a bool is no integer here
        found = (
            _KINDS.get(type(value)) if isinstance(value, dict | list) else json.dumps(value)[:40]
        )
        raise ValueError(f"{name[:80]} is {found}, expected {_KINDS[kind]}")
    return value


def count_of(value: Any, name: str) -> int:  # noqa: ANN401  any value of JSON
    """An integer in [0, 2^63).

    Raises:
        ValueError: If the value is none.
    """
    if not 0 <= typed(value, int, name) < 1 << 63:
        raise ValueError(f"{name} is {json.dumps(value)[:40]}, expected at least 0 and below 2^63")
    return int(value)


def texts_of(value: Any, name: str) -> tuple[str, ...]:  # noqa: ANN401  any value of JSON
    """A list of texts.

    Raises:
        ValueError: If the value is none.
    """
    return tuple(typed(one, str, f"one of {name}") for one in typed(value, list, name))


def counts_by_name(value: Any, name: str) -> dict[str, int]:  # noqa: ANN401  any value of JSON
    """An object of integers in [0, 2^63).

    Raises:
        ValueError: If the value is none.
    """
    return {key: count_of(one, name) for key, one in typed(value, dict, name).items()}


def plain_name(name: str, what: str) -> str:
    """A name that is safe as the name of a file, or its begin, in the directory of the facts.

    Raises:
        ValueError: If it is not.
    """
    if (
        not name.isprintable()
        or "/" in name
        or name in {"", ".", ".."}
        or len(name.encode()) > _NAME_BYTES
    ):
        raise ValueError(f"{name[:80]!a}, the name of {what}, is not a plain file name")
    return name


def _read_limited(path: Path) -> bytes:
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(JSON_BYTES + 1)


def _refuse_large(data: bytes, what: str, where: str) -> None:
    if len(data) > JSON_BYTES:
        raise OSError(0, f"has more than {JSON_BYTES:,} bytes, so it is no {what}", where)
    # An empty list has two bytes, and takes 64 once it is parsed.
    if data.count(b"[") + data.count(b"{") > MOST_BRACKETS:
        words = f"has more than {MOST_BRACKETS:,} brackets, so it is no {what}"
        raise OSError(0, words, where)


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    facts = dict(pairs)
    if len(facts) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:40]!r} stands twice in one object")
    return facts


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
