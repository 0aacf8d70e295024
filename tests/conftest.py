"""How many random problems are tried, and where compiled kernels are kept meanwhile."""

from __future__ import annotations

import os
import shutil
import tempfile

import hypothesis
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--problems",
        type=int,
        default=200,
        metavar="N",
        help="random problems for each property test (default: %(default)s)",
    )
    parser.addoption(
        "--aarch64",
        action="store_true",
        help="run tests/aarch64, which need qemu-user and a cross compiler",
    )


def pytest_configure(config: pytest.Config) -> None:
    _use_problems(config.getoption("--problems"))
    # Each run compiles what it tests: a kernel cached by an older run must not hide a mistake.
    config.stash[_CACHE_DIR] = tempfile.mkdtemp(prefix="nnpack-tests-")
    os.environ["NNPACK_CACHE_DIR"] = config.stash[_CACHE_DIR]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_CACHE_DIR], ignore_errors=True)


_CACHE_DIR = pytest.StashKey[str]()


def _use_problems(count: int) -> None:
    hypothesis.settings.register_profile(
        "nnpack",
        max_examples=count,
        deadline=None,  # the first example of a kernel compiles it
        # The same problems in every run of CI; fresh ones on every run elsewhere.
        derandomize=bool(os.environ.get("CI")),
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("nnpack")
