"""The `data` group: datasets, their mixture, and how they are read, decoded and fetched."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.errors import InputError
from moss_train.config.checks import at_least, finite_seconds, one_of

MODALITIES = ("text", "image", "video", "realtime", "dense")
DECODERS = ("auto", "pyav", "torchcodec", "opencv")


@dataclass(kw_only=True)
class DatasetConfig:
    """One folder of shards."""

    name: str
    path: str
    """Folder written by `moss data prepare`: local, or an address such as s3://bucket/folder or https://host/folder."""
    modality: str
    """text | image | video | realtime | dense: which share of `data.mixture` it belongs to."""
    weight: float = 1.0
    """Share within its modality."""
    repeats: int | None = None
    """Passes over the dataset, after which it gives no more samples; None never ends."""
    max_samples: int | None = None
    """Only so many of its samples, the first in stored order, take part; None takes all."""
    max_bad_samples: int | None = None
    """Samples of it that may be unreadable before training stops; None takes `data.max_bad_samples`."""

    def __post_init__(self) -> None:
        where = f"data.datasets[{self.name}]"
        if not self.name:
            raise InputError(f"a dataset in data.datasets with the path {self.path} has no name; give it one")
        one_of(f"{where}.modality", self.modality, MODALITIES)
        at_least(f"{where}.weight", self.weight, 0.0)
        for name, least in (("repeats", 1), ("max_samples", 1), ("max_bad_samples", 0)):
            value = getattr(self, name)
            if value is not None:
                at_least(f"{where}.{name}", value, least)


@dataclass(kw_only=True)
class DecodeConfig:
    """How videos are decoded."""

    backend: str = "auto"
    """auto | pyav | torchcodec | opencv; auto takes the first of pyav and opencv that imports."""
    skip_non_reference: bool = False
    """Leave out frames on which no other depends: faster, but a wanted frame may become its neighbour."""

    def __post_init__(self) -> None:
        one_of("data.decode.backend", self.backend, DECODERS)


@dataclass(kw_only=True)
class StorageConfig:
    """How patiently remote shards are read."""

    retries: int = 5
    """Further attempts of a read that failed, with growing pauses."""
    timeout_seconds: float = 30.0
    """Longest wait for bytes in one attempt."""
    backoff_seconds: float = 0.5
    """Pause before the first further attempt; it doubles each time, with some chance in it."""

    def __post_init__(self) -> None:
        at_least("data.storage.retries", self.retries, 0)
        for name in ("timeout_seconds", "backoff_seconds"):
            finite_seconds(f"data.storage.{name}", getattr(self, name))


@dataclass(kw_only=True)
class DataConfig:
    """Datasets, their mixture and the loader."""

    root: str = "."
    """Folder to which relative dataset paths and the tokenizer path belong."""
    tokenizer: str = "tokenizer.json"
    datasets: list[DatasetConfig] = field(default_factory=list)
    validation: list[DatasetConfig] = field(default_factory=list)
    """Held-out sets for the evaluation loss."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Share of samples by modality; shares are normalised; a modality left out has share 0."""
    global_data_workers: int = 2
    """Readers among which the data are split: fixed for the life of a run, since it determines the order of samples. The
    data-parallel size may be any divisor of it; each replica runs its share of the readers."""
    worker_processes: int | None = None
    """Processes of a replica that run its readers; 0 runs them in the training process, best where the cores are as few as the
    ranks; None gives every reader a process. No choice changes the order of samples."""
    prefetch: int = 2
    """Micro-batches that each process prepares ahead."""
    worker_timeout_seconds: float = 600.0
    """A process that gives no micro-batch for so long ends the run with a sentence."""
    shuffle_buffer: int = 100
    """Samples (undecoded) in each reader's shuffle buffer; 0 keeps the shards' order."""
    packing_buffer: int = 16
    """Samples (undecoded) among which packs are formed."""
    samples_per_pack: int | None = None
    """Upper bound of samples in a pack; None leaves only the token and frame bounds."""
    seed: int = 42
    max_bad_samples: int = 100
    """Samples of each dataset that may be unreadable before training stops."""
    skip_samples: str | None = None
    """A quarantine ledger of another run: the samples that it lists are left out unread, at the same points."""
    log_samples: bool = False
    """Write the keys of the samples of every step into the run folder."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)

    def __post_init__(self) -> None:
        for name, least in _LEAST_OF_DATA.items():
            if (value := getattr(self, name)) is not None:
                at_least(f"data.{name}", value, least)
        finite_seconds("data.worker_timeout_seconds", self.worker_timeout_seconds)
        for modality, share in self.mixture.items():
            at_least(f"data.mixture.{modality}", share, 0.0)
        for field_name, datasets in (("data.datasets", self.datasets), ("data.validation", self.validation)):
            names = [dataset.name for dataset in datasets]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise InputError(f"{field_name} has several datasets of the name {twice[0]!r}; name each differently")
        for dataset in self.validation:
            if dataset.repeats is not None:
                raise InputError(
                    f"data.validation[{dataset.name}].repeats is {dataset.repeats}; held-out data are read once, leave it out"
                )


_LEAST_OF_DATA = {
    "global_data_workers": 1,
    "worker_processes": 0,
    "prefetch": 1,
    "shuffle_buffer": 0,
    "packing_buffer": 1,
    "samples_per_pack": 1,
    "max_bad_samples": 0,
}
