"""The processes of a run: torch.distributed, megatron-core's model-parallel groups, and the vision tower's own groups."""
