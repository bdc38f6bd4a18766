"""Cores: the affinity, the quota of each cgroup above the process, and the ranks beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastload import cores
from fastload.cores import cgroup_folders, explain_cores, quota_of, usable_cores

AFFINITY = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc/self and a tree of cgroups of our own, on a machine of 64 cores."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "cg").mkdir()
    monkeypatch.setattr(cores, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def describe(machine: Path, cgroups: str, *mounts: str) -> None:
    (machine / "proc/cgroup").write_text(cgroups)
    lines = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw", *mounts]
    (machine / "proc/mountinfo").write_text("\n".join(lines).format(cg=machine / "cg"))


def write_cgroup(machine: Path, path: str, **files: str) -> None:
    folder = machine / "cg" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("cpu_", "cpu.", 1)).write_text(text + "\n")


V2 = "30 22 0:26 / {cg} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "31 22 0:27 / {cg}/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct"


def test_without_proc_the_affinity_counts(machine: Path):
    assert usable_cores() == 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", 64),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("800000 100000", 8),
        ("50000 10000", 5),
        ("6400000000 100000", 64),
        ("100000", 1),
        ("", 64),
        ("nonsense here", 64),
    ],
)
def test_the_quota_of_version_2_counts_and_a_part_is_one_core(machine: Path, text, expected):
    describe(machine, "0::/jobs/mine\n", V2)
    write_cgroup(machine, "jobs/mine", cpu_max=text)
    assert usable_cores() == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("-1", "100000", 64), ("100000", "100000", 1), ("250000", "100000", 3), ("0", "0", 64)],
)
def test_the_quota_of_version_1_counts(machine: Path, quota, period, expected):
    describe(machine, "4:memory:/elsewhere\n3:cpu,cpuacct:/jobs/mine\n", V1)
    write_cgroup(machine, "cpu,cpuacct/jobs/mine", cpu_cfs_quota_us=quota, cpu_cfs_period_us=period)
    assert usable_cores() == expected


def test_the_smallest_quota_of_all_above_counts(machine: Path):
    describe(machine, "0::/kubepods/pod7/main\n", V2)
    write_cgroup(machine, "kubepods", cpu_max="3200000 100000")
    write_cgroup(machine, "kubepods/pod7", cpu_max="300000 100000")
    write_cgroup(machine, "kubepods/pod7/main", cpu_max="max 100000")
    write_cgroup(machine, "kubepods/pod8", cpu_max="100000 100000")
    assert usable_cores() == 3


@pytest.mark.parametrize("path", ["/docker/abc", "/docker/abc/inner", "/", "/../outside", "/x"])
def test_a_container_sees_its_own_cgroup_mounted(machine: Path, path: str):
    describe(machine, f"0::{path}\n", V2.replace(" / {cg}", " /docker/abc {cg}"))
    write_cgroup(machine, ".", cpu_max="200000 100000")
    assert usable_cores() == 2


def test_both_versions_may_be_mounted(machine: Path):
    describe(machine, "1:cpu:/a\n0::/b\n", V1.replace("cpu,cpuacct rw", "cpu rw"), V2)
    write_cgroup(machine, "b", cpu_max="max 100000")
    write_cgroup(machine, "cpu/a", cpu_cfs_quota_us="400000", cpu_cfs_period_us="100000")
    assert usable_cores() == 4


def test_other_controllers_are_none_of_ours():
    text = "2:cpuset:/a\n1:cpuacct:/b\n"
    mounts = "33 22 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    assert list(cgroup_folders(text, mounts)) == []


def test_a_mount_point_may_hold_spaces():
    mounts = "33 22 0:30 / /my\\040groups rw - cgroup2 cgroup2 rw\n"
    assert list(cgroup_folders("0::/a", mounts)) == [Path("/my groups"), Path("/my groups/a")]


@pytest.mark.parametrize("name", [b"caf\xe9", "\u2028".encode(), b"a\x1cb"])
def test_a_mount_of_any_name_hides_no_quota(machine: Path, name: bytes):
    write_cgroup(machine, "", cpu_max="200000 100000")
    describe(machine, "0::/\n", V2)
    with (machine / "proc/mountinfo").open("ab") as file:
        file.write(b"\n40 22 8:2 / /mnt/%b rw shared:1 - ext4 /dev/sdb1 rw\n" % name)
    assert usable_cores() == 2


def test_no_folder_no_quota(tmp_path: Path):
    assert quota_of(tmp_path) is None


@pytest.mark.parametrize(("ranks", "expected"), [("1", 64), ("4", 16), ("48", 1), ("100", 1)])
def test_the_ranks_of_a_machine_share_its_cores(machine: Path, monkeypatch, ranks, expected):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert usable_cores() == expected


@pytest.mark.parametrize("ranks", ["0", "-1", "two", ""])
def test_a_wrong_number_of_ranks_is_named(monkeypatch, ranks):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    with pytest.raises(ValueError, match=f"LOCAL_WORLD_SIZE .* at least 1, got '{ranks}'"):
        usable_cores()


def test_what_limits_the_cores_is_said_in_one_line(machine: Path, monkeypatch):
    assert explain_cores() == ""
    describe(machine, "0::/jobs/mine\n", V2)
    write_cgroup(machine, "jobs/mine", cpu_max="200000 100000")
    assert explain_cores() == "2 of 64 cores: the container's quota"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert explain_cores() == "2 of 64 cores: the process's affinity (8), the container's quota (2)"
    write_cgroup(machine, "jobs/mine", cpu_max="max 100000")
    assert explain_cores() == "8 of 64 cores: the process's affinity"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert explain_cores() == "2 of 64 cores: the process's affinity (8), shared by 4 ranks (2)"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert explain_cores() == "16 of 64 cores: shared by 4 ranks"


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A cgroup of this system with the time of one core, to put a process into."""
    for parent, procs in (("/sys/fs/cgroup/cpu", "tasks"), ("/sys/fs/cgroup", "cgroup.procs")):
        group = Path(parent) / f"fastload-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if procs == "tasks":
                (group / "cpu.cfs_quota_us").write_text("100000")
            else:
                (group / "cpu.max").write_text("100000 100000")
        except OSError:
            group.rmdir()
            continue
        yield group / procs
        group.rmdir()
        return
    pytest.skip("no cgroup can be made here; run as root outside a container")


@pytest.mark.skipif(AFFINITY == 1, reason="a quota of one core shows nothing on one core")
def test_a_process_under_a_quota_of_one_core_uses_one(small_cgroup: Path):
    code = "from fastload.cores import usable_cores; print(usable_cores())"
    program = f"import os; open({str(small_cgroup)!r}, 'w').write(str(os.getpid())); {code}"
    environment = {name: text for name, text in os.environ.items() if name != "LOCAL_WORLD_SIZE"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert result.stdout == "1\n"
