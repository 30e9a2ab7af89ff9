"""The typed configuration of a training run and how it is composed from `conf/`."""
