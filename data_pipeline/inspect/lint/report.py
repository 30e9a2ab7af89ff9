"""Counts and examples of what was found."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from data_pipeline.inspect.lint.rules import ERROR, RULES, SEVERITIES, Finding


@dataclass
class LintReport:
    """All rules that found something, with the first examples of each."""

    examples_kept: int = 5
    """Per rule."""
    samples: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Finding]] = field(default_factory=lambda: defaultdict(list))
    stopped: bool = False
    """Whether reading ended at the bound on errors."""

    def add(self, finding: Finding) -> None:
        self.counts[finding.rule] += 1
        if len(self.examples[finding.rule]) < self.examples_kept:
            self.examples[finding.rule].append(finding)

    def merge(self, other: LintReport) -> None:
        """Append a report of what stands behind."""
        self.samples += other.samples
        self.counts.update(other.counts)
        for rule, findings in other.examples.items():
            room = self.examples_kept - len(self.examples[rule])
            self.examples[rule] += findings[: max(0, room)]

    def total(self, severity: str) -> int:
        """Findings of a severity."""
        return sum(count for rule, count in self.counts.items() if RULES[rule].severity == severity)

    @property
    def failed(self) -> bool:
        return self.total(ERROR) > 0

    def rules(self) -> list[str]:
        """Rules that found something: errors first, the most frequent first."""
        return sorted(self.counts, key=lambda rule: (SEVERITIES.index(RULES[rule].severity), -self.counts[rule], rule))

    def summary(self) -> str:
        """One line."""
        parts = [f"{self.total(s)} {s}{'' if self.total(s) == 1 else 's'}" for s in SEVERITIES]
        return f"{self.samples} samples: {', '.join(parts)}" + ("; stopped early" if self.stopped else "")

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        rows = []
        for name in self.rules():
            share = self.counts[name] / self.samples if self.samples else None
            examples = [{k: v for k, v in asdict(f).items() if k != "rule"} for f in self.examples[name]]
            rows.append({**asdict(RULES[name]), "count": self.counts[name], "share": share, "examples": examples})
        return {
            "samples": self.samples,
            **{f"{severity}s": self.total(severity) for severity in SEVERITIES},
            "stopped": self.stopped,
            "rules": rows,
        }
