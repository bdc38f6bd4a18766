"""Spread the parts of a preparation over the nodes of a Ray cluster.

    shards to write ──▶ a node: examine, write the shard ──▶ its journal    (with the hashes)
    files to index  ──▶ a node: examine                  ──▶ verdicts and seek tables

A part is what one CPU of a node does in some seconds. The node does what one machine does, with one
worker process, which may crash; so a shard has the same bytes. Ray decides which node, and starts a
part again where a node dies. Images never travel: the source lies on a file system that all nodes
share, or in an object store; so does the target, or the node uploads its shard.

Success: results come in the order of the parts; at most `WINDOW` parts for each CPU are under way.
Failure: an error that a part raises ends the run, and says on which node.
Cancel: the end of `joined` stops what is under way. A part that nobody waits for any more cannot
    spoil a later run: it writes in a folder of its run, which the next run removes first.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import PIL

from fastload.console.terminal import say
from fastload.errors import FastloadError, first_line
from fastload.installation import PACKAGE, version
from fastload.pixels import native
from fastload.prepare.bucket import BucketTarget, keep_shard
from fastload.prepare.cluster import load_ray
from fastload.prepare.examine import examine_files
from fastload.prepare.journal import Journal, StateFolder
from fastload.prepare.plan import Plan, PlannedShard
from fastload.prepare.reasons import Rules
from fastload.prepare.source import File
from fastload.prepare.staging import part_folder, run_folder
from fastload.prepare.target import Target
from fastload.prepare.verdict import Verdict
from fastload.prepare.workers import portable
from fastload.prepare.write import write_here
from fastload.runs import run_bounds
from fastload.store.facts import JSON_BYTES
from fastload.store.manifest import MANIFEST_NAME
from fastload.store.object_paths import AnyPath, ObjectPath
from fastload.store.remote import Bucket
from fastload.store.uploads import Uploads

Part = TypeVar("Part")
Result = TypeVar("Result")

WINDOW = 4  # parts for each CPU, as chunks for each worker of one machine
PART_FILES, PART_BYTES = 4096, 1 << 30  # to index: some seconds, of which 0.5 s start a process
TRIES = 5  # after the first; a part is tried again only where its node or process died
NOTE_SECONDS = 60.0  # between two notes that nothing comes
_IP = re.compile(r"\bip=([^,)\s]+)")  # as Ray's messages name a node
_NOT_SHARED = (
    "not there, but where the command runs; {} must lie on a file system that all nodes share, "
    "under the same path"
)


class _Answer(NamedTuple):
    node: str
    result: Any
    error: Exception | None


def run_parts(
    function: Callable[[Part], Result], parts: Iterable[Part]
) -> Iterator[tuple[str, Part, Result]]:
    """Apply a function to parts on the nodes of the cluster that this process has joined.

    Args:
        function: The nodes import it by name.
        parts: Taken as they are needed.

    Yields:
        The node, the part, and the result, in the order of the parts.

    Raises:
        Exception: What the function raised.
        FastloadError: If a node lacks this fastload, or Ray gives a part up.
    """
    ray = load_ray()
    task = ray.remote(num_cpus=1, max_retries=TRIES, scheduling_strategy="SPREAD")(_serve)
    todo, pending, said = iter(parts), deque[tuple[Part, Any]](), time.monotonic()
    while True:
        room = WINDOW * max(1, int(ray.cluster_resources().get("CPU", 0)))
        for part in islice(todo, max(0, room - len(pending))):
            pending.append((part, task.remote(_facts(), pickle.dumps((function, part)))))
        if not pending:
            return
        part, reference = pending[0]
        if ray.wait([reference], timeout=NOTE_SECONDS / 4)[0]:
            pending.popleft()
            answer = _answer(reference)
            said = time.monotonic()
            yield answer.node, part, answer.result
        elif time.monotonic() - said >= NOTE_SECONDS:
            said = time.monotonic()
            say("waiting for Ray: no part was done; `ray status` says why", error=True)


def _answer(reference: Any) -> _Answer:  # noqa: ANN401  Ray has no type for it
    """What a part gave.

    Raises:
        FastloadError: See `run_parts`.
    """
    ray = load_ray()

    try:
        answer: _Answer = _Answer(*ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        missing, ip = re.search(r"ModuleNotFoundError: .*", str(error)), _IP.search(str(error))
        why = missing[0] if missing else first_line(error.cause or error)
        raise FastloadError(
            f"node {ip[1] if ip else 'unknown'} cannot run this fastload ({why}); install the same "
            "version, for the Python that runs `ray start`, on all nodes"
        ) from error
    except ray.exceptions.RayError as error:
        raise FastloadError(
            f"Ray gave up a part ({first_line(error)}); finished parts are kept, and the same "
            "command goes on from there"
        ) from error
    if isinstance(answer.error, FastloadError):
        raise FastloadError(f"node {answer.node}: {answer.error}") from answer.error
    if answer.error is not None:
        raise answer.error
    return answer


def _serve(facts: dict[str, str], task: bytes) -> tuple[str, Any, Exception | None]:
    """Do a part; runs on a node. Plain types travel, as the node may have another fastload."""
    ray = load_ray()

    node = f"{ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:6]})"
    try:
        _refuse_others(facts)
        function, part = pickle.loads(task)  # noqa: S301  our driver's
        return node, function(part), None
    except Exception as error:  # noqa: BLE001  the driver raises it
        return node, None, portable(error)


@cache
def _facts() -> dict[str, str]:
    """What must be the same on all nodes, as the stored bytes depend on it."""
    sources = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        sources.update(path.read_bytes())
    return {
        "fastload": f"{version()}, sources {sources.hexdigest()[:8]}",
        "the native core": "there" if native.is_available() else "missing",
        "Pillow": PIL.__version__,
        "numpy": np.__version__,
    }


def _refuse_others(facts: dict[str, str]) -> None:
    own = _facts()
    for name, expected in facts.items():
        if own.get(name) != expected:
            raise FastloadError(
                f"{name} is {own.get(name, 'missing')} there, and {expected} where the command "
                "runs; install the same on all nodes, and start Ray anew on that one"
            )


def examine_on_nodes(
    files: Sequence[File], *, root: AnyPath, rules: Rules
) -> Iterator[tuple[File, Verdict, bytes]]:
    """Examine files on the nodes; yields what `examine_files` yields, without JPEGs."""
    bounds = run_bounds((file.bytes for file in files), count=PART_FILES, total=PART_BYTES)
    parts = (files[first:end] for first, end in pairwise(bounds))
    examine = partial(_examine_part, root=root.absolute(), rules=rules)
    images: Counter[str] = Counter()
    for node, part, results in run_parts(examine, parts):
        images[node] += len(part)
        for file, (verdict, table) in zip(part, results, strict=True):
            yield file, verdict, table
    _say_by_node(images)


def _examine_part(
    files: Sequence[File], *, root: AnyPath, rules: Rules
) -> list[tuple[Verdict, bytes]]:
    _see(root, files[0])
    results = examine_files(files, root=root, rules=rules, workers=1, with_jpeg=False)
    return [(verdict, table) for _, verdict, table in results]


def write_on_nodes(
    plan: Plan,
    shards: Sequence[PlannedShard],
    state: Target,
    journals: dict[str, Journal],
) -> Iterator[Sequence[Verdict]]:
    """Write shards on the nodes; see `WriteShards`."""
    source = replace(plan.source, root=plan.source.root.absolute(), files=(), oddities=())
    lean = replace(plan, source=source, shards=())  # what a node needs of the plan
    images: Counter[str] = Counter()
    with _writer(lean, state) as write:
        for node, shard, journal in run_parts(write, shards):
            images[node] += len(shard.files)
            journals[shard.name] = journal
            yield journal.verdicts
    _say_by_node(images)


@contextmanager
def _writer(plan: Plan, state: Target) -> Iterator[Callable[[PlannedShard], Journal]]:
    """What a node does with a shard."""
    if isinstance(state, BucketTarget):
        staging = state.staging
        yield partial(_upload_part, plan=plan, bucket=state.bucket, staging=staging)
        return
    with run_folder(StateFolder(state.out).folder) as folder:
        yield partial(_write_part, plan=plan, out=state.out.absolute(), folder=folder)


def _write_part(shard: PlannedShard, *, plan: Plan, out: Path, folder: Path) -> Journal:
    """Write a shard in a folder of this try alone, then move it and its journal to their place."""
    _see(plan.source.root, shard.files[0])
    if not folder.is_dir():
        raise FastloadError(f"{folder} is {_NOT_SHARED.format('--out')}")
    state, own = StateFolder(out), StateFolder(folder / uuid.uuid4().hex)
    own.out.mkdir()
    own.folder.mkdir()
    journals: dict[str, Journal] = {}
    try:
        for _ in write_here(plan, [shard], own, journals, workers=1):
            pass
        own.partial_path(shard.name).replace(state.partial_path(shard.name))
        own.journal_path(shard.name).replace(state.journal_path(shard.name))
    finally:
        shutil.rmtree(own.out, ignore_errors=True)
    return journals[shard.name]


def _upload_part(
    shard: PlannedShard, *, plan: Plan, bucket: Bucket, staging: Path | None
) -> Journal:
    """Write a shard in a folder of this node and this try alone, then upload it and its journal."""
    _see(plan.source.root, shard.files[0])
    journals: dict[str, Journal] = {}
    with Uploads(bucket) as uploads, part_folder(staging) as folder:
        # Without credentials a read fails at once, and before the work; an upload is tried again.
        if uploads.read(MANIFEST_NAME, most=JSON_BYTES) is not None:
            raise FastloadError(f"{bucket.address} is complete by now; another run has written it")
        own = StateFolder(folder)
        own.folder.mkdir()
        for _ in write_here(plan, [shard], own, journals, workers=1):
            pass
        keep_shard(uploads, shard.name, own.partial_path(shard.name), journals[shard.name])
    return journals[shard.name]


def _see(root: AnyPath, file: File) -> None:
    """See that a file of the source is there, where that lies on a disk.

    Raises:
        FastloadError: If it is not.
    """
    if isinstance(root, ObjectPath):
        return
    path = root / (file.container or file.path)
    if not os.path.lexists(path):
        raise FastloadError(f"{path} is {_NOT_SHARED.format('the source')}")


def _say_by_node(images: Counter[str]) -> None:
    for node, count in images.most_common():
        say(f"  node {node}: {count:,} images", error=True)
