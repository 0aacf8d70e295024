"""Kernels: mathematics turned into vector code through the assembler."""
