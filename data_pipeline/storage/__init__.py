"""Folders of shards that are not on this machine: addresses, reading with retries, and what a failing store looks like."""
