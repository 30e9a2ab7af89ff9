"""Attention of the fused layer, one module for each library: `problem`, `forward` and `backward` as in `attention.Attention`."""
