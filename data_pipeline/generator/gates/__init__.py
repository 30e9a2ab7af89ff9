"""Soft checks that need more than one row: rows that are nearly the same, answers that are too frequent or can be guessed, and
videos that evaluation sets hold."""
