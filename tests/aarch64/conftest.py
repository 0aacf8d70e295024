"""Emulated tests are collected when ``--aarch64`` asks for them."""

from __future__ import annotations

import pathlib

import pytest


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    is_test = collection_path.name.startswith("test_")
    return True if is_test and not config.getoption("--aarch64") else None
