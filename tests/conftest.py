"""How many random problems are tried, and where compiled kernels are kept meanwhile."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
        "--kernels",
        metavar="FOLDER",
        help="keep compiled kernels in FOLDER, for several runs of the same sources",
    )
    parser.addoption(
        "--aarch64",
        action="store_true",
        help="run tests/aarch64, which need qemu-user and a cross compiler",
    )


def pytest_configure(config: pytest.Config) -> None:
    _use_problems(config.getoption("--problems"))
    # The oracles multiply small matrices, and each worker of pytest has a core of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if hasattr(config, "workerinput"):
        return  # the folder is the controller's: what one worker compiles, the others find
    # Each run compiles what it tests: a kernel cached by an older run must not hide a mistake.
    kept = config.getoption("--kernels")
    folder = kept or tempfile.mkdtemp(prefix="nnpack-tests-")
    os.environ["NNPACK_CACHE_DIR"] = str(Path(folder).absolute())
    if kept is None:
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish() -> None:
    """Spare the collector all that was imported: an eighth of the time of the suite."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def _wisdom_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernels are shared; what one worker has measured is nothing to the others."""
    from nnpack import wisdom
    from nnpack.codegen import rates
    from nnpack.settings import Settings

    settings = Settings(cache_dir=tmp_path_factory.mktemp("wisdom"))
    with pytest.MonkeyPatch.context() as patch:
        for module in (wisdom, rates):
            patch.setattr(module, "get_settings", lambda: settings)
        yield


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
