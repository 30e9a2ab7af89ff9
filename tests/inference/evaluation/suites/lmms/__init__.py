"""Tests of what lmms-eval logged."""
