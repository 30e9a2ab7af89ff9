"""Tests mirror the packages: tests/model/test_x.py for model/x.py."""
