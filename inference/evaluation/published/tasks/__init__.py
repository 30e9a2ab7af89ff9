"""A folder for lmms-eval's --include_path: the group moss_published, and tasks of it that lmms-eval does not have."""
