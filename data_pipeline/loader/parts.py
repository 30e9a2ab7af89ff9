"""What the training and the validation loader have in common."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from megatron.energon.errors import FatalSampleError

from data_pipeline.loader.config import DataSettings, StageSettings
from data_pipeline.loader.ledger import Ledger
from data_pipeline.loader.task_encoder import MossTaskEncoder
from data_pipeline.media.backend import Decoding
from data_pipeline.packing.plan import PlanRules
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig
from model.errors import InputError


def build_encoder(
    data: DataSettings,
    stage: StageSettings,
    model_config: VideoMllamaConfig,
    tokenizer: Tokenizer,
    ledger: Ledger,
    total: int,
    samples_per_pack: int | None,
    jitter: float | None = None,
) -> MossTaskEncoder:
    """
    Raises:
        InputError: the decoder that is asked for does not work here.
    """
    decoding = Decoding(data.decode.backend, data.decode.skip_non_reference)
    decoding.opener()
    rules = PlanRules(
        template=stage.template,
        sequence_length=stage.sequence_length,
        max_frames=stage.max_frames_per_pack,
        fps=stage.frames.fps,
        video_min_frames=stage.frames.min_frames,
        video_max_frames=stage.frames.max_frames,
        jitter=stage.realtime_jitter_prob if jitter is None else jitter,
        label_eot_realtime=stage.label_eot_realtime,
        truncation=stage.truncation,
    )
    return MossTaskEncoder(
        tokenizer,
        rules,
        ledger,
        image_size=model_config.vision.image_size,
        grid_size=model_config.vision.grid_size,
        samples_per_pack=samples_per_pack,
        seed=data.seed,
        total_samples=total,
        decoding=decoding,
    )


@contextmanager
def explained(ledger: Ledger) -> Iterator[None]:
    """Turn what ends reading into a sentence.

    Raises:
        InputError: a worker stopped, or a shard cannot be read.
    """
    try:
        yield
    except FatalSampleError as error:
        ledger.raise_fatal(error)
        raise
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"a shard cannot be read ({error}); find it with `moss data info FOLDER --check`") from error
    except ValueError as error:
        if "tar file" not in str(error):  # the tar reader's own message
            raise
        raise InputError(f"a shard cannot be read ({error}); find it with `moss data info FOLDER --check`") from error
