"""VideoMllama for training on megatron-core: its dimensions, its mathematics and its conversion.

Importing this package, or `model.config` and `model.errors`, loads neither torch nor megatron.
"""
