"""Copies of shards on a node's own disk: made before training, kept within limits, read instead of the source.

The order of samples and the identity of the data are the source's: a copy gives the bytes of a shard, nothing else.
"""
