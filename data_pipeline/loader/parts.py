"""What the training and the validation loader have in common."""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from megatron.energon.errors import FatalSampleError

from data_pipeline.loader.config import DataSettings, StageSettings
from data_pipeline.loader.ledger import Ledger
from data_pipeline.loader.plan_rules import plan_rules
from data_pipeline.loader.task_encoder import MossTaskEncoder
from data_pipeline.media.backend import Decoding
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
    Args:
        total: samples of all datasets.
        jitter: probability instead of `stage.realtime_jitter_prob`.

    Raises:
        InputError: the decoder that is asked for does not work here.
    """
    decoding = Decoding(data.decode.backend, data.decode.skip_non_reference)
    decoding.opener()
    rules = plan_rules(stage)
    if jitter is not None:
        rules = dataclasses.replace(rules, jitter=jitter)
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
