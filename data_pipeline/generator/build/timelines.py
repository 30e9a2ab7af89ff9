"""Reading the videos of a source once, into chunks of a part each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipeline.generator.build.authors import open_model
from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.generator.build.folder import BuildFolder
from data_pipeline.generator.build.sources import Chunks
from data_pipeline.generator.gates.decontaminate import Forbidden
from data_pipeline.timeline.timeline import Timeline
from model.errors import InputError

if TYPE_CHECKING:
    from data_pipeline.timeline.readers.options import ReadOptions

BUNDLED = "bundled"
"""`source.path` of the clips that come with the package."""
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg", ".m4v")


def store_timelines(config: BuildConfig, folder: BuildFolder, progress: Callable[[str, int, int], None]) -> None:
    """Write `OUT/timelines/` unless it is there.

    Raises:
        InputError: the source is missing or gives no video that can be used.
    """
    chunks = Chunks(folder.path)
    if chunks.exists():
        return
    faults: list[str] = []
    videos = _captioned(config, folder.path, faults) if config.source.kind == "videos" else read_videos(config, faults)
    chunks.store(_counted(videos, progress), config, left_out_by(config))
    if faults:
        (folder.path / "source_faults.txt").write_text("\n".join(faults) + "\n", encoding="utf-8")


def check_source(config: BuildConfig) -> None:
    """Look whether the source can be read at all, before a folder is begun with its settings.

    Raises:
        InputError: its kind is unknown, an option is, or a file or folder is missing.
    """
    Forbidden(config.gates.decontaminate)
    if config.source.kind == "videos":
        video_files(Path(config.source.path))
        return
    _options(config, [])
    if config.source.path != BUNDLED and not Path(config.source.path).exists():
        raise InputError(f"source.path is {config.source.path}, which does not exist; give a file or folder of annotations")


def left_out_by(config: BuildConfig) -> Callable[[Timeline], str | None]:
    """Why a video is not wanted, or None, by the gates that look at videos."""
    forbidden = Forbidden(config.gates.decontaminate)

    def reason(timeline: Timeline) -> str | None:
        if config.gates.require_license and not timeline.license.strip():
            return "without a licence"
        return forbidden.reason(timeline)

    return reason


def _counted(timelines: Iterator[Timeline], progress: Callable[[str, int, int], None]) -> Iterator[Timeline]:
    for number, timeline in enumerate(timelines, start=1):
        progress("videos", number, number)
        yield timeline


def read_videos(config: BuildConfig, faults: list[str]) -> Iterator[Timeline]:
    """Timelines of annotated videos; `faults` gets a sentence for every row that cannot be used.

    Raises:
        InputError: there is no such format or file.
    """
    from data_pipeline.timeline.readers.registry import read_source

    options = _options(config, faults)
    yield from read_source(config.source.kind, config.source.path, options)


def _options(config: BuildConfig, faults: list[str]) -> ReadOptions:
    from data_pipeline.timeline.readers.options import ReadOptions
    from data_pipeline.timeline.readers.registry import READERS

    source = config.source
    if source.kind not in READERS:
        raise InputError(f"source.kind is {source.kind!r}; use world, videos or one of {', '.join(READERS)}")
    return ReadOptions(
        evident=source.evident,
        level=source.level,
        media_root=Path(source.media_root) if source.media_root else None,
        language=source.language,
        license=source.license,
        source=source.name,
        split_key=source.split_key,
        on_fault=faults.append,
    )


def _captioned(config: BuildConfig, folder: Path, faults: list[str]) -> Iterator[Timeline]:
    """Timelines of videos that a model looks at."""
    from data_pipeline.generator.backends.chat import BackendError
    from data_pipeline.generator.backends.vision import VisionOptions, caption_video

    root = Path(config.source.path)
    files = video_files(root)
    backend = open_model(config, folder)
    options = VisionOptions(language=config.source.language or "en", fps=config.fps)
    for file in files:
        try:
            yield caption_video(
                file,
                backend,
                options,
                source=config.source.name or str(file.name),
                license=config.source.license,
                name=file.stem if file == root else str(file.relative_to(root).with_suffix("")),
            )
        except BackendError as error:
            raise InputError(f"{error} (all answers are kept: the same command goes on with them)") from None
        except InputError as error:
            faults.append(f"{file}: {error}")


def video_files(root: Path) -> list[Path]:
    """A video, or all videos below a folder.

    Raises:
        InputError: there is none.
    """
    if not root.exists():
        raise InputError(f"source.path is {root}, which does not exist; give a video or a folder of videos")
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.suffix.lower() in VIDEOS)
    if not files:
        raise InputError(f"source.path {root} holds no video ({', '.join(VIDEOS)})")
    return files
