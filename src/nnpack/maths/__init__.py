"""Exact mathematics of the algorithms. Knows no LLVM and no NumPy."""
