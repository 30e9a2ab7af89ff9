"""How Energon's task encoder blends datasets of which some end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megatron.energon import TaskEncoder, WorkerConfig
from megatron.energon.flavors import SavableDataset
from megatron.energon.metadataset.loader_interface import LoadedDataset
from megatron.energon.wrappers import BlendDataset, RepeatDataset, ShuffleBufferDataset


class BlendedTaskEncoder(TaskEncoder):
    """A task encoder that also gives weights to datasets with a number of passes, which Energon's does only to endless ones."""

    def build_train_datasets(
        self,
        *,
        datasets: Sequence[LoadedDataset],
        worker_config: WorkerConfig,
        packing_buffer_size: int | None = None,
        shuffle_buffer_size: int | None = None,
        **options: Any,
    ) -> SavableDataset[Any]:
        """A reader's pipeline. It ends when all datasets have a number of passes and are used up.

        Without such a number it is Energon's own.
        """
        if all(loaded.repetitions is None for loaded in datasets):
            return super().build_train_datasets(
                datasets=datasets,
                worker_config=worker_config,
                packing_buffer_size=packing_buffer_size,
                shuffle_buffer_size=shuffle_buffer_size,
                **options,
            )
        passes = self._passes(datasets, worker_config)
        dataset = BlendDataset(*passes, worker_config=worker_config) if len(passes) > 1 else passes[0][0]
        if shuffle_buffer_size is not None:
            dataset = ShuffleBufferDataset(dataset, size=shuffle_buffer_size, worker_config=worker_config)
        return self.build_batch(
            self.build_encode_sample(dataset, worker_config=worker_config),
            batch_size=None,
            packing_buffer_size=packing_buffer_size,
            worker_config=worker_config,
        )

    def _passes(self, datasets: Sequence[LoadedDataset], worker_config: WorkerConfig) -> list[tuple[SavableDataset[Any], float]]:
        readers = max(1, worker_config.num_workers) * worker_config.world_size
        passes, samples_before = [], 0
        for loaded in datasets:
            # Energon's rule: whoever got one sample more of the datasets before gets one less of this
            one_pass = self._load_dataset(loaded, samples_before % readers, worker_config)
            repeated = RepeatDataset(one_pass, repeats=loaded.repetitions, restart=False, worker_config=worker_config)
            passes.append((repeated, float(loaded.weight)))
            samples_before += len(loaded.dataset)
        return passes
