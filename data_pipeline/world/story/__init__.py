"""Stories: videos of five levels of difficulty with exact truth, at any frame rate, length and size."""

from data_pipeline.world.story.story import Story, build_story

__all__ = ["Story", "build_story"]
