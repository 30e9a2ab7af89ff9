"""Low-rank adapters: a linear layer y = W x becomes y = W x + alpha / rank * B (A x) with W frozen.

A has the shape [rank, in] and starts random, B has the shape [out, rank] and starts at zero, so that an adapted model starts
as the model that it adapts (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021).
"""
