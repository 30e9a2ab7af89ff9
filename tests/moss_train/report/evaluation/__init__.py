"""Tests of the page of evaluations."""
