"""The rules of a stage, for the loader and for whoever looks at data without one."""

from __future__ import annotations

from data_pipeline.loader.config import StageSettings
from data_pipeline.packing.plan import PlanRules


def plan_rules(stage: StageSettings) -> PlanRules:
    """What `stage` asks of every sample."""
    return PlanRules(
        template=stage.template,
        sequence_length=stage.sequence_length,
        max_frames=stage.max_frames_per_pack,
        fps=stage.frames.fps,
        video_min_frames=stage.frames.min_frames,
        video_max_frames=stage.frames.max_frames,
        jitter=stage.realtime_jitter_prob,
        label_eot_realtime=stage.label_eot_realtime,
        truncation=stage.truncation,
    )
