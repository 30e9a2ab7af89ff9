"""What a session forgets as it grows: one file for each policy of frames, one for text, and the runner that applies them.

A policy decides on what a session keeps (kinds, times and counts of pages) and never touches a tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.cache.policies.arguments import add_policy_arguments, parse_policy, policy_from
    from inference.cache.policies.policy import CachePolicy

__all__ = ["CachePolicy", "add_policy_arguments", "parse_policy", "policy_from"]


def __getattr__(name: str) -> Any:
    if name == "CachePolicy":
        from inference.cache.policies.policy import CachePolicy

        return CachePolicy
    if name in __all__:
        from inference.cache.policies import arguments

        return getattr(arguments, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
