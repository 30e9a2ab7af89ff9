"""Settings: what is wrong is named before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from data_pipeline.generator.build.authors import open_author
from data_pipeline.generator.build.config import BuildConfig, check_weights
from data_pipeline.generator.build.folder import settings_of
from model.errors import InputError
from moss_train.config.build import build


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rwos": {}}, "rwos is not a known setting; did you mean rows"),
        ({"rows": {"trian": 3}}, r"rows\.trian is not a known setting; did you mean rows\.train"),
        ({"rows": {"train": "many"}}, r"rows\.train is 'many'; it must be a whole number"),
        ({"rows": {"train": -1}}, r"rows\.train is -1; it must be 0 or more"),
        ({"rows": {"shares": {"dev": 1}}}, r"rows\.shares\.dev is unknown; use some of train, validation, test"),
        ({"behaviours": {"direkt": 1}}, r"behaviours\.direkt is unknown; use some of narrate, direct"),
        ({"behaviours": {"direct": 0}}, "behaviours holds no weight above 0"),
        ({"behaviours": {"direct": float("nan")}}, r"behaviours\.direct is nan"),
        ({"languages": {"fr": 1}}, r"languages\.fr is unknown; use some of en, zh"),
        ({"world": {"variants": {"upside_down": 1}}}, r"world\.variants\.upside_down is unknown; use some of plain, frozen"),
        ({"fps": 0}, "fps is 0; it must lie above 0 and be at most 30"),
        ({"max_wait": -1}, r"max_wait is -1\.0; it must be 0 or more seconds"),
        ({"rows_per_part": 0}, "rows_per_part is 0; it must be at least 1"),
        ({"author": "ghost"}, "author is 'ghost'; use one of templates, model"),
        ({"source": {"kind": "captions"}}, r"source\.path is empty; give the file or folder of captions"),
        ({"source": {"kind": "videos", "path": "x"}}, "which a model has to caption; set author=model"),
        ({"gates": {"silence_ratio": [0.5]}}, r"gates\.silence_ratio is \[0\.5\]; give two rising shares"),
        ({"gates": {"judge": 5}}, r"gates\.judge is 5; marks lie within 0\.\.4"),
        ({"gates": {"near_duplicates": 0}}, r"gates\.near_duplicates is 0; it must lie within"),
        ({"emission": {"mode": "slow"}}, "slow"),
        ({"emission": {"mode": "list", "rates": [0]}}, "rates"),
    ],
)
def test_one_sentence_names_field_value_and_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build(BuildConfig, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"author_options": {"mood": 1}}, r"author_options\.mood is unknown for templates"),
        ({"author": "model", "model": {"model": "m"}}, r"model\.base_url is missing"),
        ({"author": "model", "model": {"base_url": "http://h/v1", "model": "m", "kolour": 1}}, r"model\.kolour is unknown"),
        (
            {"author": "model", "model": {"base_url": "http://h/v1", "model": "m"}, "author_options": {"mood": 1}},
            "author_options: .*mood.*; see docs/generator.md",
        ),
        (
            {"author": "model", "model": {"base_url": "http://h/v1", "model": "m", "api_key_env": "NO_SUCH_KEY"}},
            "NO_SUCH_KEY, which is not set",
        ),
    ],
)
def test_authors_are_opened_or_say_why_not(tmp_path: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_author(build(BuildConfig, values), tmp_path)


def test_settings_come_back_from_what_is_stored() -> None:
    config = build(BuildConfig, {"fps": 2, "gates": {"silence_ratio": [0.2, 0.9], "decontaminate": ["a.txt"]}})
    stored = {key: value for key, value in settings_of(config).items() if key != "version"}
    assert build(BuildConfig, stored) == config


def test_weights_may_have_any_sum() -> None:
    check_weights("w", {"a": 7, "b": 0}, ("a", "b"))
    with pytest.raises(InputError, match="w holds no weight above 0"):
        check_weights("w", {})
