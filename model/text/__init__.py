"""The decoder's parts: rotary tables in plain torch, and the layers that are built on megatron-core."""
