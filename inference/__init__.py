"""Running a converted checkpoint in one process: engine, sessions, commands and evaluation. Never imports megatron.core."""
