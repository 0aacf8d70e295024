"""Silencing native code."""

from __future__ import annotations

import os
import sys

import pytest

from nnpack.cli.bench.quiet import quiet


def test_native_output_does_not_get_through(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with quiet():
        os.write(1, b"native")
        os.write(2, b"native")
    print("after", file=sys.stderr)
    assert capfd.readouterr() == ("before\n", "after\n")


def test_output_comes_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), quiet():
        raise ValueError("inside")
    print("after")
    assert capfd.readouterr().out == "after\n"
