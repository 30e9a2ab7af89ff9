"""Which samples share a pack."""

from __future__ import annotations

from collections.abc import Sequence


def select_packs(
    sizes: Sequence[tuple[int, int]], max_rows: int, max_frames: int, max_samples: int | None = None
) -> list[list[int]]:
    """Form packs that stay within both bounds; the fullest samples are placed first, each where it first fits.

    Args:
        sizes: (rows, frames) of every sample; each fits a pack by itself.

    Returns:
        Indices of every pack's samples; each index occurs once. Packs and their samples keep the given order.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-max(sizes[i][0] / max_rows, sizes[i][1] / max(max_frames, 1)), i))
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for i in order:
        rows, frames = sizes[i]
        for p, (free_rows, free_frames) in enumerate(room):
            if rows <= free_rows and frames <= free_frames and (max_samples is None or len(packs[p]) < max_samples):
                packs[p].append(i)
                room[p] = (free_rows - rows, free_frames - frames)
                break
        else:
            packs.append([i])
            room.append((max_rows - rows, max_frames - frames))
    return sorted(sorted(pack) for pack in packs)
