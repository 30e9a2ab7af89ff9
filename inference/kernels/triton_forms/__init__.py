"""Triton forms. Only imported where Triton is installed and chosen; the kernels use no feature newer than Triton 3.4."""
