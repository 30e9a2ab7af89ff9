"""Limits and manners of a session; plain values, so that a trace or a saved state can hold them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from inference.cache.policies.arguments import parse_policy
from inference.cache.policies.policy import CachePolicy
from inference.cache.policies.text import TextWindow
from inference.sampling import SamplingConfig
from inference.session.queue_policies import check_policy
from model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """How a session speaks, what it takes in, and when it ends."""

    system: str = ""
    """System text of the first turn; '' for none."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    tokens_per_second: float | None = None
    """At most so many tokens a second; None: as fast as the model goes (wall clock only)."""
    tokens_per_frame: int | None = None
    """At most so many tokens between two frames, evenly spread over `frame_seconds`: the rate of the training data."""
    frame_seconds: float = 1.0
    """Length of a frame's slot where the next frame is late, seconds; with `tokens_per_frame` only."""
    max_new_tokens: int = 86400
    idle_timeout: float | None = 5.0
    """Seconds of silence without arrivals after which a session ends; None: only once its inbox is closed."""
    max_frames: int = 65536
    """Frames that the session remembers; later ones are rejected."""
    max_pending_frames: int = 256
    """Frames that may wait for a token boundary; `queue_policy` says what gives way."""
    queue_policy: str = "drop_oldest"
    """drop_oldest | drop_newest | block | coalesce | degrade."""
    coalesce_threshold: float = 2.0
    """Mean difference of thumbnails, in levels of 255, below which `coalesce` takes two frames for the same."""
    max_frames_per_step: int | None = None
    """Frames that one step feeds at most; the others wait for the next token boundary. None: all that wait."""
    policy: CachePolicy | None = None
    """What the session forgets as the stream grows; None: nothing."""
    encode_on_arrival: bool = False
    """Frames are given to `engine.encoder` when they arrive, and fed at the first token boundary at which they are ready."""
    keep_events: bool = True
    """Keep all events in memory; False for streams of hours whose events go to `on_event` alone."""

    def __post_init__(self) -> None:
        for name in ("tokens_per_second", "frame_seconds", "coalesce_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; it must be above 0 and finite")
        for name in ("max_new_tokens", "max_frames", "max_pending_frames", "tokens_per_frame", "max_frames_per_step"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if self.idle_timeout is not None and not 0 <= self.idle_timeout < math.inf:
            raise InputError(f"idle_timeout is {self.idle_timeout}; it must be 0 or more and finite")
        if self.tokens_per_second is not None and self.tokens_per_frame is not None:
            raise InputError("tokens_per_second and tokens_per_frame are both given; a session keeps one pace, leave one out")
        check_policy(self.queue_policy)

    @property
    def paced(self) -> bool:
        """Whether tokens take stream time."""
        return self.tokens_per_second is not None or self.tokens_per_frame is not None

    @property
    def frames_per_step(self) -> int | None:
        """Frames that one step feeds at most, for the policy's sake too; None: any number."""
        limits = (self.max_frames_per_step, self.policy.step_frames if self.policy is not None else None)
        return min((limit for limit in limits if limit is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        policy = None if self.policy is None else _policy_as_dict(self.policy)
        return values | {"sampling": dataclasses.asdict(self.sampling), "policy": policy}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> SessionSettings:
        """The settings that `as_dict` described.

        Raises:
            InputError: an unknown field or a bad value; `where` names the file.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"{where}: the session setting {unknown[0]} is not known; use the version that wrote it")
        try:
            policy = values.get("policy")
            known_types = {
                "sampling": SamplingConfig(**values.get("sampling", {})),
                "policy": None if policy is None else _policy_from_dict(policy),
            }
            return cls(**values | known_types)
        except TypeError as error:
            raise InputError(f"{where}: the session settings cannot be read ({error}); use the version that wrote it") from None


def _policy_as_dict(policy: CachePolicy) -> dict[str, Any]:
    values = {f.name: getattr(policy, f.name) for f in dataclasses.fields(policy)}
    text = None if policy.text is None else dataclasses.asdict(policy.text)
    return values | {"cross": policy.cross.spell(), "text": text}


def _policy_from_dict(values: dict[str, Any]) -> CachePolicy:
    text = values["text"]
    return CachePolicy(**values | {"cross": parse_policy(values["cross"]), "text": None if text is None else TextWindow(**text)})
