"""An author without a model: phrase tables in English and Chinese, with a fallback for subjects that they do not know."""

from data_pipeline.generator.templates.style import PERSONAS
from data_pipeline.generator.templates.template_author import TemplateAuthor

__all__ = ["PERSONAS", "TemplateAuthor"]
