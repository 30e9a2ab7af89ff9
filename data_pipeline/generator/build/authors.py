"""Opening the author of a build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_pipeline.generator.author import Author
from data_pipeline.generator.build.config import BuildConfig
from model.errors import InputError

ARTEFACTS = "artefacts"
"""Folder of everything that an endpoint has answered: asked again, it costs nothing."""
_OPEN: dict[Path, tuple[dict[str, Any], Any]] = {}
"""The endpoint of the build that this process makes."""


def open_author(config: BuildConfig, folder: Path) -> tuple[Author, Any]:
    """The author, and the backend that it asks (None for templates).

    Raises:
        InputError: an option is unknown, or the endpoint cannot be used.
    """
    options = dict(config.author_options)
    if config.author == "templates":
        from data_pipeline.generator.templates import TemplateAuthor

        unknown = sorted(set(options) - {"unasked"})
        if unknown:
            raise InputError(f"author_options.{unknown[0]} is unknown for templates, which have unasked")
        return TemplateAuthor(**options), None
    from data_pipeline.generator.models import ModelAuthor
    from data_pipeline.generator.models.model_author import ModelOptions

    backend = open_model(config, folder)
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        settings = ModelOptions(**values)
    except TypeError as error:
        raise InputError(f"author_options: {error}; see docs/generator.md") from None
    return ModelAuthor(backend, options=settings), backend


def open_model(config: BuildConfig, folder: Path) -> Any:
    """The endpoint of a build, with what it has answered before; captions and dialogues share its budget and its limits."""
    from data_pipeline.generator.backends.cached import CachedBackend
    from data_pipeline.generator.backends.open import open_backend

    known = _OPEN.get(folder)
    if known is None or known[0] != config.model:
        _OPEN.clear()
        _OPEN[folder] = (dict(config.model), CachedBackend(open_backend(config.model), folder / ARTEFACTS))
    return _OPEN[folder][1]


def forget_model() -> None:
    """Let the next build count its costs from 0."""
    _OPEN.clear()
