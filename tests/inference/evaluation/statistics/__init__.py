"""Tests of intervals, comparisons and p values."""
