"""What is counted while rows are written: enough for the report card, in memory that does not grow with the text of the rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.generator.card.histogram import Counts, Histogram
from data_pipeline.realtime.dialogue import Dialogue, Utterance
from data_pipeline.realtime.emission import CountTokens
from data_pipeline.realtime.layout import slots_of
from model.errors import InputError

VERSION = 1
_SECONDS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0)
_TOKENS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0)
EDGES: dict[str, tuple[float, ...]] = {
    "silence_ratio": tuple(round(0.05 * i, 2) for i in range(21)),
    "onset_minus_question": _SECONDS,
    "onset_minus_evidence": _SECONDS,
    "onset_minus_due": _SECONDS,
    "tokens_per_slot": _TOKENS,
    "tokens_per_utterance": _TOKENS,
    "emission_rate": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 24.0, 32.0, 40.0, 60.0, 80.0, 120.0),
    "utterances_per_row": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0),
    "frames_per_row": (1.0, 4.0, 8.0, 12.0, 16.0, 17.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 512.0),
}
"""Bins of each histogram. Delays are seconds: from the question, from the end of the evidence and from the first moment at
which saying it is right, to the first slot in which it is said."""
COUNTED = ("question_kinds", "utterance_kinds", "answer_values", "languages", "provenance", "versions")
SUMS = ("rows", "frames", "silent_frames", "seconds", "tokens", "questions", "utterances", "preempted", "corrections", "unsaid")
_VALUED = ("answer", "count", "correction", "alert", "not_yet")
_REASONS = 200
"""Kinds of rejection that are told apart."""
_EXAMPLE = 400
"""Letters that are kept of an example."""
_VARYING = re.compile(r"(?<!\w)'[^']*'|\"[^\"]*\"|(?<!\w)-?\d+(?:\.\d+)?(?!\w)")
_SEED = re.compile(r",? seed \d+")


@dataclass
class Tally:
    """Numbers about the rows of one part, or of several that were merged."""

    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0))
    histograms: dict[str, Histogram] = field(default_factory=lambda: {name: Histogram(edges) for name, edges in EDGES.items()})
    counts: dict[str, Counts] = field(default_factory=lambda: {name: Counts() for name in COUNTED})
    behaviours: dict[str, dict[str, int]] = field(default_factory=dict)
    """By behaviour: rows, frames, silent frames, utterances. A row with several behaviours is counted under each."""
    rejections: dict[tuple[str, str, str], tuple[int, str]] = field(default_factory=dict)
    """By stage, kind of reason and behaviour: how many, and the first one as an example."""
    split_keys: set[int] = field(default_factory=set)
    """Digests."""
    videos: set[int] = field(default_factory=set)
    """Digests."""

    def add(self, dialogue: Dialogue, count_tokens: CountTokens) -> None:
        """Count a row that is written.

        Args:
            count_tokens: as it was laid out with; wrap it in `realtime.words.CountCache` for a corpus.

        Raises:
            InputError: the dialogue is not laid out.
        """
        texts = [slot.text for slot in slots_of(dialogue, count_tokens)]
        frames = len(texts)
        said = [(u, count_tokens(u.said or "")) for u in dialogue.utterances if u.span is not None]
        silent = texts.count("")
        step = 1.0 / dialogue.fps
        self._sum(
            rows=1,
            frames=frames,
            silent_frames=silent,
            seconds=dialogue.frame_times[-1] - dialogue.frame_times[0] + step if frames else 0.0,
            tokens=sum(tokens for _, tokens in said),
            questions=len(dialogue.users),
            utterances=len(said),
            preempted=sum(u.preempted for u, _ in said),
            corrections=sum(u.corrects is not None for u, _ in said),
            unsaid=len(dialogue.utterances) - len(said),
        )
        self.histograms["frames_per_row"].add(frames)
        self.histograms["utterances_per_row"].add(len(said))
        self.histograms["silence_ratio"].add(silent / frames if frames else 1.0)
        if dialogue.emission_tps is not None:
            self.histograms["emission_rate"].add(dialogue.emission_tps)
        for utterance, tokens in said:
            self._add_utterance(dialogue, utterance, tokens)
        for text in texts:
            if text:
                self.histograms["tokens_per_slot"].add(count_tokens(text))
        self._add_names(dialogue)
        for name in dialogue.behaviours:
            mine = self.behaviours.setdefault(name, {"rows": 0, "frames": 0, "silent_frames": 0, "utterances": 0})
            for key, more in (("rows", 1), ("frames", frames), ("silent_frames", silent), ("utterances", len(said))):
                mine[key] += more

    def reject(self, stage: str, reason: str, example: str = "", behaviour: str = "") -> None:
        """Count a row that is not written; reasons that differ in numbers and quoted texts alone count as one kind."""
        key = (stage, kind_of(reason), behaviour)
        if key not in self.rejections and len(self.rejections) >= _REASONS:
            key = (stage, "other reasons", "")
        shown = reason + (f" [{example}]" if example else "")
        count, first = self.rejections.get(key, (0, shown[:_EXAMPLE]))
        self.rejections[key] = (count + 1, first)

    def merge(self, other: Tally) -> None:
        """Add the numbers of another part."""
        self._sum(**other.sums)
        for name, histogram in other.histograms.items():
            self.histograms[name].merge(histogram)
        for name, counts in other.counts.items():
            self.counts[name].merge(counts)
        for name, numbers in other.behaviours.items():
            mine = self.behaviours.setdefault(name, dict.fromkeys(numbers, 0))
            for key, more in numbers.items():
                mine[key] += more
        for key3, (count, example) in other.rejections.items():
            if key3 not in self.rejections and len(self.rejections) >= _REASONS:
                key3 = (key3[0], "other reasons", "")
            before, first = self.rejections.get(key3, (0, example))
            self.rejections[key3] = (before + count, first)
        self.split_keys |= other.split_keys
        self.videos |= other.videos

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "version": VERSION,
            "sums": self.sums,
            "histograms": {name: histogram.to_dict() for name, histogram in self.histograms.items()},
            "counts": {name: counts.to_dict() for name, counts in self.counts.items()},
            "behaviours": self.behaviours,
            "rejections": [[*key, count, example] for key, (count, example) in self.rejections.items()],
            "split_keys": sorted(self.split_keys),
            "videos": sorted(self.videos),
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any], where: str = "tally") -> Tally:
        """A tally as `to_dict` gave it.

        Raises:
            InputError: it is of another version or not a tally at all.
        """
        tally = Tally()
        try:
            if values["version"] != VERSION:
                raise InputError(f"{where} is of version {values['version']}; this is version {VERSION}: build it again")
            tally._sum(**{name: values["sums"][name] for name in SUMS})
            for name, histogram in tally.histograms.items():
                histogram.load(values["histograms"][name], f"{where} field histograms.{name}")
            for name, counts in tally.counts.items():
                counts.load(values["counts"][name])
            tally.behaviours = {name: dict(numbers) for name, numbers in values["behaviours"].items()}
            tally.rejections = {(s, r, b): (count, example) for s, r, b, count, example in values["rejections"]}
            tally.split_keys, tally.videos = set(values["split_keys"]), set(values["videos"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where} is damaged ({type(error).__name__}: {error}); delete the part and build again") from None
        return tally

    def _sum(self, **more: float) -> None:
        for name, value in more.items():
            self.sums[name] += value

    def _add_utterance(self, dialogue: Dialogue, utterance: Utterance, tokens: int) -> None:
        assert utterance.span is not None
        onset = utterance.span[0]
        self.histograms["tokens_per_utterance"].add(tokens)
        self.histograms["onset_minus_evidence"].add(onset - utterance.evidence[1])
        self.histograms["onset_minus_due"].add(onset - utterance.t)
        if utterance.answers is not None:
            self.histograms["onset_minus_question"].add(onset - dialogue.users[utterance.answers].t)
        self.counts["utterance_kinds"].add(utterance.kind)
        if utterance.kind in _VALUED:
            self.counts["answer_values"].add(value_of(utterance.text))

    def _add_names(self, dialogue: Dialogue) -> None:
        for user in dialogue.users:
            self.counts["question_kinds"].add(user.behaviour or "unnamed")
        self.counts["languages"].add(dialogue.language)
        # Clips of one world differ in their seeds alone; they are one source.
        self.counts["provenance"].add(f"{_SEED.sub('', dialogue.source) or 'unknown'}\t{dialogue.license or 'unknown'}")
        version = dialogue.generator.get("version") or dialogue.generator.get("pipeline")
        self.counts["versions"].add(str(version) if version else "unknown")
        video = dialogue.video or dialogue.timeline or dialogue.id
        self.videos.add(digest(video))
        self.split_keys.add(digest(dialogue.split_key or video))


def kind_of(reason: str) -> str:
    """A reason without what varies from row to row: quoted texts and numbers."""
    return _VARYING.sub("…", reason)[:_EXAMPLE]


def value_of(text: str) -> str:
    """An answer as it is compared: no case, no punctuation at its ends."""
    return text.strip().strip(".!?。！？").lower()[:80]


def digest(text: str) -> int:
    """52 bits: a whole number that JSON keeps exactly."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) >> 4
