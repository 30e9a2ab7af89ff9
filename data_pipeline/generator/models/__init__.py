"""An author that asks a model: prompts, schemas, and answers that are checked before anything is made of them."""

from data_pipeline.generator.models.model_author import ModelAuthor, ModelOptions

__all__ = ["ModelAuthor", "ModelOptions"]
