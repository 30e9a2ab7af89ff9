"""Where the ranks stood in a case that took too long: each writes its calls before it is ended."""

from __future__ import annotations

from pathlib import Path

SHARE = 0.9
"""Of a case's seconds, behind which a rank that is not through writes where it stands."""
DEPTH = 12  # calls of a rank that are told


def stack_file(lines: Path, rank: int) -> Path:
    """What a rank's `faulthandler` writes to, beside the job's lines."""
    return lines.with_name(f"stacks-{rank}")


def standing(lines: Path, ranks: int) -> list[str]:
    """The newest calls of each rank that wrote them, innermost first, of the thread that trains."""
    told: list[str] = []
    for rank in range(ranks):
        path = stack_file(lines, rank)
        written = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        starts = [i for i, line in enumerate(written) if "most recent call first" in line]
        if starts:  # the main thread comes last
            told += [f"rank {rank}:", *written[starts[-1] + 1 :][:DEPTH]]
    return told
