"""Settings come from the environment once; the number of threads has an order of precedence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnpack import settings
from nnpack.errors import DtypeError, ProblemError, SettingsError
from nnpack.settings import Settings, get_num_threads, resolve_num_threads, set_num_threads


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment that says nothing about threads, and settings read anew from it."""
    for name in ("NNPACK_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    settings.get_settings.cache_clear()
    set_num_threads(None)
    yield monkeypatch
    set_num_threads(None)
    settings.get_settings.cache_clear()


def _read(**environ: str) -> Settings:
    return Settings.from_environment({"HOME": "/home/someone", **environ})


def test_an_empty_environment_leaves_everything_to_the_machine() -> None:
    empty = _read(NNPACK_NUM_THREADS="", NNPACK_TARGET="", NNPACK_VERBOSE="", NNPACK_CACHE_DIR="")
    assert empty == _read()
    assert (empty.threads, empty.target, empty.verbose) == (None, None, False)


def test_settings_are_read_once() -> None:
    assert settings.get_settings() is settings.get_settings()


@pytest.mark.parametrize(
    ("environ", "threads"),
    [
        ({"NNPACK_NUM_THREADS": "3"}, 3),
        ({"NNPACK_NUM_THREADS": " 3 ", "OMP_NUM_THREADS": "5"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": "many"}, None),
        ({"OMP_NUM_THREADS": "0"}, None),
        ({"OMP_NUM_THREADS": "1000000"}, settings.MAX_THREADS),
    ],
)
def test_threads_of_the_environment(environ: dict[str, str], threads: int | None) -> None:
    assert _read(**environ).threads == threads


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1e3", "1025"])
def test_a_malformed_number_of_threads_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=f"NNPACK_NUM_THREADS='{text}' must be an integer"):
        _read(NNPACK_NUM_THREADS=text)


@pytest.mark.parametrize("target", ["avx512", "avx2", "x86-64"])
def test_a_target_can_be_forced(target: str) -> None:
    assert _read(NNPACK_TARGET=target).target == target


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(SettingsError, match="NNPACK_TARGET='sse9' must be one of avx512, avx2"):
        _read(NNPACK_TARGET="sse9")


@pytest.mark.parametrize(("text", "verbose"), [("1", True), ("Yes", True), ("0", False)])
def test_verbosity(text: str, verbose: bool) -> None:
    assert _read(NNPACK_VERBOSE=text).verbose is verbose


def test_a_malformed_verbosity_is_refused() -> None:
    with pytest.raises(SettingsError, match="NNPACK_VERBOSE='loud' must be 1 or 0"):
        _read(NNPACK_VERBOSE="loud")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert _read().cache_dir == tmp_path / ".cache" / "nnpack"
    assert _read(XDG_CACHE_HOME="/var/cache").cache_dir == Path("/var/cache/nnpack")
    assert _read(XDG_CACHE_HOME="relative").cache_dir == tmp_path / ".cache" / "nnpack"
    assert _read(NNPACK_CACHE_DIR="/kernels").cache_dir == Path("/kernels")
    assert _read(NNPACK_CACHE_DIR="~/kernels").cache_dir == tmp_path / "kernels"
    assert _read(NNPACK_CACHE_DIR="kernels").cache_dir == tmp_path / "kernels"
    assert _read(NNPACK_CACHE_DIR="off").cache_dir is None


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    assert _read().cache_dir is None


def test_threads_argument_then_setting_then_environment_then_machine(
    environment: pytest.MonkeyPatch,
) -> None:
    assert get_num_threads() == settings.default_num_threads()
    environment.setenv("NNPACK_NUM_THREADS", "7")
    settings.get_settings.cache_clear()
    assert get_num_threads() == 7
    set_num_threads(5)
    assert get_num_threads() == resolve_num_threads(None) == 5
    assert resolve_num_threads(3) == 3
    set_num_threads(None)
    assert get_num_threads() == 7


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("threads", [0, -2, settings.MAX_THREADS + 1])
def test_threads_out_of_range_are_refused(threads: int) -> None:
    with pytest.raises(SettingsError, match=f"threads={threads} must be from 1"):
        set_num_threads(threads)
    with pytest.raises(ProblemError, match=f"threads={threads} must be from 1"):
        resolve_num_threads(threads)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("threads", [True, 1.5, "2", (1,)])
def test_threads_of_another_kind_are_refused(threads: Any) -> None:
    with pytest.raises(DtypeError, match="threads=.* must be an integer or None"):
        set_num_threads(threads)
    with pytest.raises(DtypeError, match="threads=.* must be an integer or None"):
        resolve_num_threads(threads)


def test_the_default_is_at_most_the_affinity_and_at_least_one() -> None:
    assert 1 <= settings.default_num_threads() <= settings.affinity_count() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("quota", "threads"), [(None, 8), (2.5, 2), (0.3, 1), (64.0, 8)])
def test_the_default_rounds_the_quota_down(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: int
) -> None:
    monkeypatch.setattr(settings, "affinity_count", lambda: 8)
    monkeypatch.setattr(settings, "cgroup_cpu_limit", lambda: quota)
    assert settings.default_num_threads.__wrapped__() == threads


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _limit(tmp_path: Path, membership: str) -> float | None:
    _write(tmp_path / "membership", membership)
    return settings.cgroup_cpu_limit(tmp_path / "membership", tmp_path / "root")


def test_quotas_of_version_2_bind_through_all_ancestors(tmp_path: Path) -> None:
    _write(tmp_path / "root/a/b/cpu.max", "max 100000\n")
    _write(tmp_path / "root/a/cpu.max", "150000 100000\n")
    assert _limit(tmp_path, "0::/a/b\n") == 1.5
    _write(tmp_path / "root/a/b/cpu.max", "50000 100000\n")
    assert _limit(tmp_path, "0::/a/b\n") == 0.5


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_quotas_of_version_1_are_in_two_files(tmp_path: Path, mount: str) -> None:
    _write(tmp_path / f"root/{mount}/a/cpu.cfs_quota_us", "300000\n")
    _write(tmp_path / f"root/{mount}/a/cpu.cfs_period_us", "100000\n")
    assert _limit(tmp_path, "3:cpuset:/a\n2:cpu,cpuacct:/a\n0::/\n") == 3.0


def test_a_container_sees_its_own_quota_at_the_mount(tmp_path: Path) -> None:
    """The path is the host's, and does not exist below the mount."""
    _write(tmp_path / "root/cpu.max", "200000 100000\n")
    assert _limit(tmp_path, "0::/docker/0123\n") == 2.0


@pytest.mark.parametrize(
    ("quota", "period"), [("-1", "100000"), ("0", "100000"), ("1", "0"), ("?", "1")]
)
def test_quotas_that_mean_no_limit(tmp_path: Path, quota: str, period: str) -> None:
    _write(tmp_path / "root/cpu/cpu.cfs_quota_us", quota)
    _write(tmp_path / "root/cpu/cpu.cfs_period_us", period)
    _write(tmp_path / "root/cpu.max", "malformed")
    assert _limit(tmp_path, "1:cpu:/\n0::/\nnonsense\n") is None


def test_machines_without_control_groups_have_no_quota(tmp_path: Path) -> None:
    assert settings.cgroup_cpu_limit(tmp_path / "absent", tmp_path) is None
