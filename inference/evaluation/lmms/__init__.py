"""The plug-in for lmms-eval: its entry point `lmms_eval.models` loads `MANIFEST`.

Nothing here imports lmms-eval before `MANIFEST` is asked for, so that the package works without it.
"""

from __future__ import annotations

from typing import Any

from model.errors import InputError

MODEL = "moss_video"
ALIASES = ("moss_video_preview", "video_mllama")


def __getattr__(name: str) -> Any:
    """`MANIFEST`, made when it is asked for.

    Raises:
        InputError: lmms-eval is not installed.
    """
    if name != "MANIFEST":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    try:
        from lmms_eval.models.registry_v2 import ModelManifest
    except ImportError as error:
        raise InputError("the plug-in needs the package lmms-eval, which is missing; pip install 'moss-train[lmms]'") from error
    return ModelManifest(
        model_id=MODEL,
        simple_class_path=f"{__name__}.models.MossVideoSimple",
        chat_class_path=f"{__name__}.models.MossVideoChat",
        aliases=ALIASES,
    )
