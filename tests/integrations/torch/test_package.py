"""``nnpack.torch`` is imported when it is asked for, and says what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _run(program: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_without_pytorch_the_error_names_the_extra() -> None:
    program = """
import sys
sys.modules["torch"] = None
import nnpack
try:
    nnpack.torch
except ImportError as error:
    print(error)
"""
    assert _run(program) == 'nnpack.torch needs PyTorch: pip install "nnpack-jit[torch]"'


def test_pytorch_is_imported_with_it_and_not_before() -> None:
    pytest.importorskip("torch")
    program = """
import sys
import nnpack
nnpack.Relu()
before = "torch" in sys.modules
nnpack.torch.convert
print(before, "torch" in sys.modules)
"""
    assert _run(program) == "False True"


def test_every_public_name_works_and_has_a_docstring() -> None:
    pytest.importorskip("torch")
    import nnpack

    assert len(set(nnpack.torch.__all__)) == len(nnpack.torch.__all__)
    assert all(getattr(nnpack.torch, name).__doc__ for name in nnpack.torch.__all__)
