"""Which LLVM compiles the kernels."""

from __future__ import annotations


def llvm_version() -> tuple[int, ...]:
    """LLVM's version, (major, minor, patch). Imports llvmlite."""
    import llvmlite.binding as llvm

    version: tuple[int, ...] = llvm.llvm_version_info
    return version
