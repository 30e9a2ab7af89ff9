"""Endpoints that answer requests with JSON."""
