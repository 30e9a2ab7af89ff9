"""E.T. Bench's annotations hold the whole prompt of each sample; a template may put text around it."""

from __future__ import annotations

TEMPLATES = {"sample": "{prompt}"}
