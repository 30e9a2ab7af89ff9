"""One small model for all tests of sessions."""

from __future__ import annotations

import pytest

from data_pipeline.text.tokenizer import Tokenizer
from inference.model.load import load_model
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.session.streams import RecordingEngine


@pytest.fixture(scope="package")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> RecordingEngine:
    """Random weights whose silence row is large: the model sometimes speaks and sometimes does not."""
    config = tiny_config(tokenizer.vocab_size)
    tensors = random_tensors(config, seed=11)
    tensors["language_model.lm_head.weight"][tokenizer.silence_id] *= 5
    folder = write_checkpoint(tmp_path_factory.mktemp("session"), config, tokenizer=tokenizer, tensors=tensors)
    return RecordingEngine(load_model(folder))
