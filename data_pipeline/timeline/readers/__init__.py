"""Annotations of many formats to timelines: one format a file, by name in `registry`."""
