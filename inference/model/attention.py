"""Kept for callers of the old name."""

from inference.kernels.torch_forms.prefix_attention import prefix_attention as prefix_attention
