"""A stream in virtual time: once the windows are full nothing grows, neither pages, nor keys read, nor positions.

`python -m tests.inference.cache.long_stream` runs the same for hours, and counts bytes.
"""

from __future__ import annotations

from pathlib import Path

from data_pipeline.text.tokenizer import Tokenizer
from inference.cache.policies.policy import CachePolicy
from inference.cache.policies.pooled import PooledAged
from inference.cache.policies.text import TextWindow
from inference.cache.store import ROWS_PER_PAGE
from inference.model.load import load_model
from inference.sampling import SamplingConfig
from inference.session import SessionSettings
from tests.inference.cache.long_stream import run_stream
from tests.inference.checkpoints import tiny_config, tiny_tokenizer, write_checkpoint


def test_nothing_grows(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", tiny_config(), tokenizer=tiny_tokenizer())
    model, tokenizer = load_model(folder), Tokenizer.from_file(folder)
    tokens = model.config.vision.tokens_per_frame
    policy = CachePolicy(cross=PooledAged(8, 2, 2), text=TextWindow(64, 64), position_limit=320, step_rows=32, step_frames=2)
    settings = SessionSettings(
        sampling=SamplingConfig(do_sample=True, seed=1), tokens_per_second=2, keep_events=False, max_frames=10**9, policy=policy
    )
    samples, engine = run_stream(model, tokenizer, settings, hours=0.06, minutes=0.6, fps=1.0)
    bounds = policy.bounds(ROWS_PER_PAGE, tokens, max_rows=10**9, max_frames=10**9)
    most_keys = policy.text.most_rows(ROWS_PER_PAGE, 32) + bounds.frame_pages * tokens if policy.text else 0
    full = samples[3:]
    assert samples[-1].frames_seen >= 210 and samples[-1].renumberings >= 3
    assert {sample.kept_bytes for sample in full} == {engine.store.num_bytes}
    for sample in full:
        assert sample.row_pages <= bounds.row_pages and sample.frame_pages <= bounds.frame_pages
        assert sample.most_keys_read <= most_keys and sample.most_position < 320
    # A slope of zero: what the second half reads at most, the first half did too.
    half = len(full) // 2
    for name in ("most_keys_read", "most_position"):
        early, late = (max(getattr(sample, name) for sample in part) for part in (full[:half], full[half:]))
        assert late <= early * 1.1, name
