"""Which library decodes videos."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module

from data_pipeline.media.video import Source, Video
from model.errors import InputError

BACKENDS = ("pyav", "torchcodec", "opencv")
AUTOMATIC = ("pyav", "opencv")
"""What `auto` tries, in this order."""

_MODULES = {"pyav": "av", "torchcodec": "torchcodec.decoders", "opencv": "cv2"}
_PACKAGES = {
    "pyav": "pip install av",
    "torchcodec": "pip install torchcodec==0.13.0 and FFmpeg's libraries",
    "opencv": "pip install opencv-python-headless",
}

Opener = Callable[[Source, str], AbstractContextManager[Video]]


@dataclass(frozen=True)
class Decoding:
    """How videos are decoded; the same choice everywhere gives the same frames."""

    backend: str = "auto"
    """auto | pyav | torchcodec | opencv; auto takes the first of pyav and opencv that imports."""
    skip_non_reference: bool = False
    """Instead of a frame on which no other depends, the nearest one on which others do (pyav only)."""

    def opener(self) -> Opener:
        """Opens a file under a label.

        Raises:
            InputError: the library does not import here, or cannot skip frames.
        """
        name = self.chosen()
        if self.skip_non_reference and name != "pyav":
            raise InputError(f"data.decode.skip_non_reference works with PyAV only; here {name} decodes, so switch it off")
        if name == "pyav":
            from data_pipeline.media.decode_pyav import open_pyav

            return partial(open_pyav, skip_non_reference=self.skip_non_reference)
        if name == "torchcodec":
            from data_pipeline.media.decode_torchcodec import open_torchcodec

            return open_torchcodec
        from data_pipeline.media.decode_opencv import open_opencv

        return open_opencv

    def chosen(self) -> str:
        """The backend by name, `auto` resolved.

        Raises:
            InputError: it is unknown or does not import.
        """
        if self.backend not in ("auto", *BACKENDS):
            raise InputError(f"data.decode.backend is {self.backend!r}; use auto or one of {', '.join(BACKENDS)}")
        candidates = AUTOMATIC if self.backend == "auto" else (self.backend,)
        reasons = {name: import_problem(name) for name in candidates}
        for name, reason in reasons.items():
            if reason is None:
                return name
        found = "; ".join(f"{name}: {reason} ({_PACKAGES[name]})" for name, reason in reasons.items())
        raise InputError(f"data.decode.backend is {self.backend}, but no such decoder imports here: {found}")


@cache
def import_problem(backend: str) -> str | None:
    """Why the library of a backend does not import; None where it does."""
    try:
        import_module(_MODULES[backend])
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec raises RuntimeError without FFmpeg
        return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
    return None
