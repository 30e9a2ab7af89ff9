"""Made-up entries of OVO-Bench's annotation file."""

from __future__ import annotations

from typing import Any

CHOICE = {"question": "Which colour?", "answer": "blue", "options": ["red", "blue", "green"], "gt": 1}
ENTRIES: list[dict[str, Any]] = [
    {"id": 0, "task": "EPM", "video": "Ego4D/a.mp4", "realtime": 3, **CHOICE},
    {"id": 1, "task": "OCR", "video": "Ego4D/a.mp4", "realtime": 7.2, **CHOICE},
    {
        "id": 2,
        "task": "REC",
        "video": "COIN/b.mp4",
        "activity": "clapping",
        "start_times": [1, 5],
        "end_times": [2, 6],
        "test_info": [{"realtime": 2, "count": 1}, {"realtime": 4.5, "count": 1}, {"realtime": 8, "count": 2}],
    },
    {
        "id": 3,
        "task": "SSR",
        "video": "COIN/b.mp4",
        "tutorial": "Tea",
        "all_steps": ["boil water", "pour it"],
        "start_time": [2, 6],
        "end_time": [4, 8],
        "test_info": [
            {"realtime": 1, "step": "boil water", "type": 0},
            {"realtime": 3, "step": "boil water", "type": 1},
            {"realtime": 7, "step": "pour it", "type": 1},
        ],
    },
    {
        "id": 4,
        "task": "CRR",
        "video": "COIN/b.mp4",
        "question": "What is poured?",
        "answer": "Water.",
        "ask_time": 2,
        "clue_time": 6,
        "test_info": [
            {"realtime": 2, "type": 0},
            {"realtime": 5, "type": 0},
            {"realtime": 7, "type": 1},
            {"realtime": 9, "type": 1},
        ],
    },
    {"id": 5, "task": "ASI", "video": "Ego4D/gone.mp4", "realtime": 3, **CHOICE},
]
