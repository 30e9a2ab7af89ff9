"""Names of layouts and what the check tries in each."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from moss_train.verify.layouts.names import (
    EIGHT_RANKS,
    LAYOUTS,
    MODULES,
    OF_GPUS,
    PRESETS,
    Trial,
    choose_layouts,
    layouts_of_gpus,
    parse_layout,
    trials_of,
    trials_of_all,
)


def test_a_name_gives_all_sizes() -> None:
    layout = parse_layout("tp2.sp.pp2.vpp3.cp2.dp4.rc.l1-2-3-4-5-6:all,text_only")
    sizes = layout.sizes
    assert (sizes.tensor, sizes.pipeline, sizes.virtual_pipeline, sizes.context, layout.data) == (2, 2, 3, 2, 4)
    assert sizes.sequence_parallel and sizes.recompute == "full" and sizes.stage_layers == [1, 2, 3, 4, 5, 6]
    assert layout.ranks == 32 and layout.presets == ("all", "text_only")
    assert parse_layout(layout.text) == layout


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_ranks_are_the_product(tensor: int, pipeline: int, context: int, data: int) -> None:
    assert parse_layout(f"tp{tensor}.pp{pipeline}.cp{context}.dp{data}").ranks == tensor * pipeline * context * data
    assert parse_layout("one").ranks == 1


@pytest.mark.parametrize("name", ["tpp2", "tp0", "tp2.tp2", "sp.sp", "", "tp2..sp", "l1-", "tp2 sp"])
def test_what_is_no_layout_is_named(name: str) -> None:
    with pytest.raises(InputError, match="is no part of a layout"):
        parse_layout(name)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(InputError, match="preset 'everything' is unknown; use one of projector_only"):
        parse_layout("tp2:everything")


def test_the_lists_cover_every_kind() -> None:
    layouts = choose_layouts((), 4)
    assert {layout.name for layout in layouts} == set(LAYOUTS)
    assert [layout.ranks for layout in layouts] == sorted(layout.ranks for layout in layouts)
    assert max(layout.ranks for layout in choose_layouts((), 8)) == 8
    assert all(parse_layout(name).ranks == 8 for name in EIGHT_RANKS)
    sizes = [layout.sizes for layout in layouts]
    assert {1, 2, 3, 4} <= {s.tensor for s in sizes} and {1, 2, 3, 4} <= {s.pipeline for s in sizes}
    assert {2, 3} <= {s.virtual_pipeline for s in sizes} and 2 in {s.context for s in sizes}
    assert any(s.sequence_parallel for s in sizes) and any(s.recompute == "full" for s in sizes)
    assert any(s.stage_layers for s in sizes) and {2, 4} <= {layout.data for layout in layouts}


def test_trials_are_both_optimizers_and_one_in_bf16() -> None:
    trials = trials_of(parse_layout("tp2"), PRESETS, bf16=True)
    assert len(trials) == 2 * len(PRESETS) + 1 and trials[-1] == Trial("all", "sgd", "bf16")
    assert trials_of(parse_layout("tp2:text_only"), PRESETS, bf16=False) == [
        Trial("text_only", "sgd"),
        Trial("text_only", "adamw"),
    ]
    both = trials_of_all([parse_layout("tp2:all"), parse_layout("pp2:all,text_only")], PRESETS, bf16=False)
    assert len(both) == 4


def test_the_modules_of_a_run_have_trials_of_their_own() -> None:
    layout = parse_layout("tp2:all")
    own = [Trial("all", "sgd", "bf16", "auto"), Trial("all", "adamw", "bf16", "auto")]
    assert trials_of(layout, PRESETS, bf16=False, modules="auto") == own
    both = trials_of(layout, PRESETS, bf16=False, modules="both")
    assert both == [Trial("all", "sgd"), Trial("all", "adamw"), *own] and len({trial.key for trial in both}) == 4
    assert all(trials_of(layout, PRESETS, False, modules) for modules in MODULES)


def test_layouts_of_a_machine_take_all_its_gpus() -> None:
    for gpus in OF_GPUS:
        assert {layout.ranks for layout in layouts_of_gpus(gpus)} == {gpus}
        assert all(layout.sizes.tensor in (1, 2, 4) for layout in layouts_of_gpus(gpus)), "3 does not divide the model of a run"
    with pytest.raises(InputError, match="--gpus is 3; use one of 1, 2, 4, 8"):
        layouts_of_gpus(3)


def test_names_need_no_torch() -> None:
    code = "import sys, moss_train.verify.layouts.report, moss_train.verify.layouts.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
