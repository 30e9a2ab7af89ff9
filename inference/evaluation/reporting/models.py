"""What is known of each evaluated model: settings, what it was given, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from inference.evaluation.results import Results
from inference.evaluation.schema import Trace

JsonObject = dict[str, Any]
MOST_ERRORS = 20
"""Named; more are counted."""
_NO_SETTING = ("checkpoint", "frames", "end", "session", "baseline")
"""Of a trace's `engine`: what belongs to one scenario, or is told elsewhere."""


def describe(results: Results, traces: Sequence[Trace], baseline: bool) -> JsonObject:
    """One model: name, folder, checkpoint, settings, how many traces of each mode, what it was given, errors."""
    record = results.record
    engine: JsonObject = traces[0].engine if traces else {}
    checkpoint = dict(record.checkpoint)
    if not checkpoint and engine:
        checkpoint = {name: engine[name] for name in ("checkpoint", "baseline") if engine.get(name)}
    usage: Counter[str] = Counter()
    for trace in traces:
        usage.update({name: value for name, value in trace.usage.items() if isinstance(value, (int, float))})
    errors = [{"scenario": t.scenario_id, "mode": t.mode, "error": t.error} for t in traces if t.error]
    return {
        "name": results.name,
        "folder": str(results.folder),
        "baseline": baseline,
        "checkpoint": checkpoint,
        "settings": record.settings or {name: value for name, value in engine.items() if name not in _NO_SETTING},
        "command": record.command,
        "judge": record.judge,
        "versions": record.versions,
        "seconds": record.seconds,
        "written": record.written,
        "scenario_files": record.scenario_files,
        "items": dict(Counter(item.mode for item in results.items)),
        "traces": dict(Counter(trace.mode for trace in traces)),
        "usage": dict(usage),
        "errors": errors[:MOST_ERRORS],
        "errors_in_all": len(errors),
    }


def manifests_of(all_results: Sequence[Results]) -> list[JsonObject]:
    """Manifests of all runs, each once."""
    found: list[JsonObject] = []
    for results in all_results:
        found += [manifest for manifest in results.record.manifests if manifest not in found]
    return found


def what_is_missing(all_results: Sequence[Results], described: Sequence[JsonObject], needing_judge: Sequence[str]) -> list[str]:
    """One sentence for each thing that the page cannot show."""
    notes = [note for results in all_results for note in results.notes]
    for results, model in zip(all_results, described, strict=True):
        name, traces = results.name, model["traces"]
        if not traces and results.totals:
            continue  # of lmms-eval, which does not stream
        if not traces:
            notes.append(f"{name}: no traces, hence no timelines and no count of what it was given.")
        elif "push" not in traces:
            notes.append(f"{name}: never streamed (no push traces), hence nothing on latency, silence and timing.")
        if needing_judge and not model["judge"] and not model["baseline"]:
            notes.append(f"{name}: no judge was asked; what needs one in {', '.join(needing_judge)} is left out.")
        if model["errors_in_all"]:
            first = model["errors"][0]
            notes.append(
                f"{name}: {model['errors_in_all']} runs ended early; their scores count what is there. "
                f"The first: {first['scenario']} ({first['mode']}): {first['error']}"
            )
        if traces and not model["usage"] and not model["baseline"]:
            notes.append(f"{name}: frames and tokens that it was given were not recorded.")
    return notes
