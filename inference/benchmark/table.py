"""Tables in Markdown, drawn from the file of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.benchmark import roofline
from inference.benchmark.legacy import EQUAL_LENGTH, PUBLISHED, PUBLISHED_PEER, decompose, latency_at
from inference.benchmark.models import MODELS, valid_patch_rows
from inference.benchmark.roofline import H200, Chip, chip_named
from inference.benchmark.workload import WORKLOADS, Workload
from model.config import VideoMllamaConfig


@dataclass(frozen=True)
class Target:
    """One row of the table."""

    label: str
    unit: str
    must: float
    aim: float
    part: str
    """Whose measurement it is."""
    at_most: bool = True
    """Less is better."""

    def holds(self, value: float, bound: float) -> bool:
        """Whether the bound is kept."""
        return value <= bound if self.at_most else value >= bound


NOT_MEASURED = "not measured"

TARGETS = {
    "ttft_exact_s": Target("first token from pixels, exact", "s", 1.45, 1.30, "first-token"),
    "ttft_fast_s": Target("first token from pixels, fast mode", "s", 0.80, 0.65, "first-token-fast"),
    "ttft_stream_p95_ms": Target("first token after a streamed frame, P95", "ms", 40, 25, "stream"),
    "prompt_to_token_p95_ms": Target("prompt to token, frames cached, P95", "ms", 20, 10, "stream"),
    "decode_tps_bf16": Target("decoding, bf16", "tokens/s", 150, 175, "decode", at_most=False),
    "decode_tps_fp8": Target("decoding, fp8", "tokens/s", 230, 270, "decode-fp8", at_most=False),
    "e2e_256_s": Target("{new_tokens} tokens end to end", "s", 3.2, 2.85, "end-to-end"),
    "peak_gib": Target("peak memory", "GiB", 26, 24, "end-to-end"),
    "sessions16_tps": Target("{sessions} sessions speaking, each", "tokens/s", 60, 120, "sessions", at_most=False),
    "sessions16_frame_p95_ms": Target("{sessions} sessions, frame to token, P95", "ms", 150, 80, "sessions"),
}
"""What one H200 must and should reach with the 11B model and 256 frames of 560 pixels."""


def floors(config: VideoMllamaConfig, work: Workload, chip: Chip = H200) -> dict[str, float]:
    """What a chip allows, in the units of `TARGETS`."""
    rows, frames = work.text_rows + work.frames, work.frames
    context = rows + work.decode_tokens / 2
    window, many = work.window_frames, work.sessions
    pools = frames * roofline.cross_bytes_per_frame(config) + (rows + work.new_tokens) * roofline.self_bytes_per_position(config)
    step = roofline.decode_floor(config, chip, window, work.sessions_rows, sessions=many)
    frame = roofline.tower_flops(config) + roofline.projector_flops(config) + roofline.cross_key_value_flops(config)
    return {
        "ttft_exact_s": roofline.first_token_floor(config, chip, rows, frames),
        "ttft_fast_s": roofline.fast_floor(config, chip, rows, frames, valid_patch_rows(config)),
        "ttft_stream_p95_ms": 1e3 * roofline.stream_floor(config, chip, frames, rows),
        "prompt_to_token_p95_ms": 1e3 * roofline.decode_floor(config, chip, frames, rows),
        "decode_tps_bf16": 1 / roofline.decode_floor(config, chip, frames, context),
        "decode_tps_fp8": 1 / roofline.decode_floor(config, chip, frames, context, recipe="fp8"),
        "e2e_256_s": roofline.end_to_end_floor(config, chip, rows, frames, work.new_tokens),
        "peak_gib": (2 * roofline.parameters(config).total + pools) / 2**30,
        "sessions16_tps": 1 / step,
        "sessions16_frame_p95_ms": 1e3 * (frame / chip.flops + step),
    }


def write_tables(content: Mapping[str, Any]) -> str:
    """All tables of one file of results."""
    parts = [_devices(content), _chip(content), _summary_table(content), _streams(content), _protocol_table(content)]
    parts += [_roofline_table(content), _correctness(content)]
    missing = [f"* {name}: {reason}" for name, reason in content["not_measured"].items()]
    if missing:
        parts.append("Not measured:\n\n" + "\n".join(missing))
    return "\n\n".join(part for part in parts if part) + "\n"


def _devices(content: Mapping[str, Any]) -> str:
    """One line for each machine that measured something."""
    found: dict[str, list[str]] = {}
    for part, measured in content["parts"].items():
        around = measured["surroundings"]
        versions = ", ".join(f"{name} {number}" for name, number in around.get("versions", {}).items())
        line = f"{around.get('hardware', {}).get('device', 'unknown device')}, {around.get('date', 'no date')}, {versions}"
        found.setdefault(line, []).append(part)
    return "\n".join(f"* {line}: {', '.join(parts)}" for line, parts in found.items())


def _chip(content: Mapping[str, Any]) -> str:
    """What a copy and products reach, where that was measured."""
    found = content["parts"].get("chip")
    if found is None:
        return ""
    line = f"A copy moves {found['bytes_per_second'] / 1e12:.2f} TB/s, a product runs at {found['flops'] / 1e12:.0f} TFLOP/s"
    if "sustained" in found:
        held = found["sustained"]
        line += f", at {held['flops'] / 1e12:.0f} once it has run for {held['seconds']:.1f} s ({held['clocks']})"
    return line + "."


def _streams(content: Mapping[str, Any]) -> str:
    """What has no place in a table of ten numbers."""
    lines, parts = [], content["parts"]
    if "jitter" in parts:
        one = parts["jitter"]
        p99, p50 = (_number(1e3 * one["statistics"]["gap_s"][key]) for key in ("p99", "p50"))
        lines.append(
            f"* One session speaking while {one['fps']:g} frames a second arrive: P99 / P50 of the gaps between tokens "
            f"{one['jitter']:.2f} ({p99} / {p50} ms), {one['frames_seen']} frames seen."
        )
    if "long-stream" in parts:
        one, kept = parts["long-stream"], parts["long-stream"]["windows"]
        lines.append(
            f"* {one['frames']} frames at {one['frames_per_second']:.1f} a second in windows of {kept['frames']} frames and "
            f"{kept['rows']} rows: memory {one['memory_gib_per_hour']:+.4f} GiB in 3,600 frames, the last tenth's step "
            f"takes {one['last_over_first']:.3f} times the first tenth's."
        )
    return "\n".join(lines)


def _summary_table(content: Mapping[str, Any]) -> str:
    full = content["model"] == "11b"
    rated = full and Workload(**_tuples(content["workload"])) == WORKLOADS["full"]
    lines = ["| | measured | must | aim | floor | correct |", "| --- | --- | --- | --- | --- | --- |"]
    for name, target in TARGETS.items():
        value = content["summary"][name]
        cells = [
            f"{target.label.format(**content['workload'])} ({target.unit})",
            NOT_MEASURED if value is None else _number(value),
        ]
        if value is not None and rated:
            cells[1] += "" if target.holds(value, target.must) else " (missed)"
        cells += [f"{target.must:g}", f"{target.aim:g}"] if rated else ["-", "-"]
        cells.append(_number(_floor(content, name, target.part)) if full else "-")
        cells.append(_verdict(content, target.part))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _floor(content: Mapping[str, Any], name: str, part: str) -> float:
    """Of the chip that measured a part; of an H200 where it is not measured."""
    device = content["parts"].get(part, {}).get("surroundings", {}).get("hardware", {}).get("device", H200.name)
    return floors(MODELS["11b"], Workload(**_tuples(content["workload"])), chip_named(device))[name]


def _tuples(workload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in workload.items()}


def _verdict(content: Mapping[str, Any], part: str) -> str:
    found = content["parts"].get(part)
    return "-" if found is None else str(found["correctness"])


_PUBLISHED = {"reference": PUBLISHED, "Qwen2.5-VL-7B": PUBLISHED_PEER}
_IMPLYING = ("ttft_s", "tokens_per_second", "total_s")


def _protocol_table(content: Mapping[str, Any]) -> str:
    legacy, peer = (content["parts"].get(part) for part in ("legacy", "peer"))
    if legacy is None and peer is None:
        return ""
    rows: list[tuple[str, Mapping[str, Any] | None, float]] = [
        ("this engine", legacy, 0.0 if legacy is None else legacy["runs"][0]["tokens"]),
        *((f"{name}, published", one, decompose(*(one[key] for key in _IMPLYING))["tokens"]) for name, one in _PUBLISHED.items()),
    ]
    if peer is not None:
        rows.append((f"{peer['model']}, random weights, same device", peer, peer["tokens"]))
    lines = [
        "By the reference's protocol, and what one generation of 256 tokens takes at these rates:",
        "",
        "| | TTFT (s) | P95 (s) | tokens/s | total (s) | tokens | 256 tokens (s) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one, tokens in rows:
        if one is None:
            lines.append(f"| {name} |" + f" {NOT_MEASURED} |" * 6)
            continue
        speed = one["tokens_per_second"]
        cells = [name, *(_number(one[key]) for key in ("ttft_s", "ttft_p95_s", "tokens_per_second", "total_s")), f"{tokens:.0f}"]
        cells.append(_number(latency_at(one["ttft_s"], speed, EQUAL_LENGTH)) if speed > 0 else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _roofline_table(content: Mapping[str, Any]) -> str:
    lines = ["| stage | floor (ms) | measured (ms) | percent of the floor's speed |", "| --- | --- | --- | --- |"]
    for part, found in content["parts"].items():
        for stage, one in found.get("roofline", {}).items():
            cells = [f"{part}: {stage.removesuffix('_s').replace('_', ' ')}", _number(1e3 * one["floor_s"])]
            cells += [_number(1e3 * one["measured_s"]), f"{one['percent']:.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _correctness(content: Mapping[str, Any]) -> str:
    lines = []
    for part, found in content["parts"].items():
        if "effect" in found:
            change = found["effect"]
            lines.append(
                f"* {part}: cosine of features with the exact ones {change['cosine mean']:.5f} on average, "
                f"{change['cosine least']:.5f} at the least; {100 * change['greedy agreement']:.1f} % of greedy tokens the same."
            )
        if "timed_weights" not in found:
            continue
        logits = found["timed_weights"]
        greedy = "equal" if found["small_model_greedy_equals_full_forward"] else "DIFFER FROM"
        batch = "speak as they do" if found["small_model_batch_equals_alone"] else "DO NOT SPEAK as they do"
        small = f"a small fp32 model's {found['greedy_tokens']} greedy tokens {greedy} the full forward's"
        together = f"{found['sessions_in_the_batch']} sessions in one batch {batch} alone"
        lines.append(
            f"* {part}: logits fed row by row differ from those of the whole sequence by {logits['relative_rms']:.2g} of "
            f"their own size (allowed {logits['tolerance']:g}), the likeliest token is the same in "
            f"{100 * logits['same_likeliest']:.1f} % of rows; {small}, and {together}."
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    """Four digits that count."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
