"""The vision half in plain torch: tower, pooling and projector, with the parameter names of the published checkpoints.

Training and inference build the same module, so neither megatron-core nor any parallel state is needed here.
"""
