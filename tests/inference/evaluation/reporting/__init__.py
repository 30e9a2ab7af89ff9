"""Tests of what a page of evaluations says."""
