"""What the measurements of training run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.packs import stage_pack
from moss_train.bench.subject import Cut, Subject, overrides_of, subject
from moss_train.config.compose import compose
from moss_train.config.schema import RunConfig

CPU = torch.device("cpu")


def small(stage: str = "pt2", **options: object) -> RunConfig:
    return compose(overrides_of(stage, model="tiny", precision="fp32", **options))  # type: ignore[arg-type]


def gradients(made: Subject) -> Iterator[tuple[str, torch.Tensor]]:
    for module in (*made.models.chunks, made.models.unit):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield name, parameter.main_grad.clone()


def test_gradients_alone_are_those_of_a_run_with_an_optimizer() -> None:
    found = []
    for updates in (False, True):
        with subject(small(), CPU, updates=updates) as made:
            batch = stage_pack(made.model_config, "pt2", 96, 6)
            statistics = made.step.accumulate([batch])
            found.append((statistics.loss, dict(gradients(made))))
    (loss, alone), (other, full) = found
    assert loss == other and alone.keys() == full.keys() and len(alone) > 50
    assert all(torch.equal(alone[name], full[name]) for name in alone)
    assert sum(bool(gradient.any()) for gradient in alone.values()) > 50


def test_only_a_subject_that_updates_changes_its_weights() -> None:
    for updates in (False, True):
        with subject(small(), CPU, updates=updates) as made:
            batch = stage_pack(made.model_config, "pt2", 96, 6)
            before = [p.detach().clone() for p in made.models.unit.parameters()]
            made.train([batch], rate=1e-2)
            changed = [not torch.equal(a, b) for a, b in zip(before, made.models.unit.parameters(), strict=True)]
            assert any(changed) == updates and made.done == 1
            assert ("optimizer" in made.step.phases.take()) == updates


def test_a_stage_trains_what_it_trains() -> None:
    with subject(small("pt1"), CPU, updates=False) as made:
        names = [name for name, _ in gradients(made)]
        assert names and all("projector" in name for name in names)


def test_a_failed_start_leaves_room_for_the_next() -> None:
    with pytest.raises(InputError, match="fp8"), subject(compose(overrides_of("pt2", model="tiny", precision="fp8")), CPU):
        pass
    with subject(small(), CPU, updates=False) as made:
        assert made.parameters > 100_000


@pytest.mark.parametrize(("layers", "places"), [(10, (3, 8)), (4, (3,)), (9, (3, 8)), (40, tuple(range(3, 40, 5)))])
def test_a_cut_text_keeps_the_places_of_its_cross_layers(layers: int, places: tuple[int, ...]) -> None:
    model = VideoMllamaConfig.from_dict(compose(overrides_of("pt2", cut=Cut(text_layers=layers))).model)
    assert (model.text.num_hidden_layers, model.text.cross_attention_layers) == (layers, places)
    assert (model.text.hidden_size, model.text.vocab_size, model.vision.num_hidden_layers) == (4096, 128256, 32)


@pytest.mark.parametrize("layers", [*range(6, 40), 40])
def test_a_cut_tower_keeps_the_width_of_its_output(layers: int) -> None:
    vision = VideoMllamaConfig.from_dict(compose(overrides_of("pt2", cut=Cut(tower_layers=layers))).model).vision
    whole = VideoMllamaConfig().vision
    assert vision.num_hidden_layers + vision.num_global_layers == layers and vision.num_global_layers >= 1
    assert vision.output_dim == whole.output_dim
    indices = vision.intermediate_layers_indices
    assert list(indices) == sorted(set(indices)) and indices[-1] < vision.num_hidden_layers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "pt9"}, "--stages has 'pt9'; use pt1, pt2"),
        ({"stage": "pt2", "model": "12b"}, "--model has '12b'; use 11b"),
        ({"stage": "pt2", "precision": "int4"}, "--precision has 'int4'; use bf16, fp8, fp32"),
        ({"stage": "pt2", "optimizer": "lion"}, "--optimizer has 'lion'; use none, adamw, compact"),
        ({"stage": "pt2", "cut": Cut(text_layers=3)}, "--text-layers is 3; this model takes 4, its first cross layer's, to 40"),
        ({"stage": "pt2", "cut": Cut(text_layers=41)}, "--text-layers is 41"),
        ({"stage": "pt2", "cut": Cut(tower_layers=5)}, "--tower-layers is 5; this model takes at most 40, and so many that 5"),
        ({"stage": "pt2", "cut": Cut(tower_layers=41)}, "--tower-layers is 41"),
    ],
)
def test_what_a_model_does_not_have_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        overrides_of(**options)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_a_subject_frees_the_gpu() -> None:
    device, before = torch.device("cuda", 0), torch.cuda.memory_allocated()
    for _ in range(2):
        with subject(compose(overrides_of("pt2", model="small")), device, updates=False) as made:
            made.train([stage_pack(made.model_config, "pt2", 256, 6)])
            assert torch.cuda.memory_allocated() - before > made.weight_bytes > 0
        assert torch.cuda.memory_allocated() - before < 64 << 20, "beside what was there before"
