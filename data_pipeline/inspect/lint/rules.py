"""Names, severities and remedies of all rules."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Rule:
    """One kind of fault."""

    name: str
    severity: str
    """error | warning | note"""
    what: str
    remedy: str


_TABLE = (
    Rule("shard-unreadable", ERROR, "a shard is damaged or cut short", "copy it again or write the folder again"),
    Rule("no-index", ERROR, "the folder lacks the index that the loader needs", "write it with `moss data prepare`"),
    Rule("no-summary", NOTE, "the folder has no summary.json: shards of another tool", "none needed; sizes are not checked"),
    Rule("summary-mismatch", ERROR, "shards differ from summary.json", "copy the folder again or write it again"),
    Rule("json", ERROR, "the sample's fields are missing or not JSON", "write the sample again"),
    Rule("key", ERROR, "the key is empty or holds a dot", "give every sample a key of its own without a dot"),
    Rule("duplicate-key", ERROR, "a key occurs twice in a source", "rename one of the samples"),
    Rule("duplicate-sample", WARNING, "text and media are those of another sample", "remove one of the two"),
    Rule("duplicate-media", NOTE, "another sample has the same media file", "none, if several texts for a clip are meant"),
    Rule("schema", ERROR, "a field is unknown, missing or of the wrong kind", "see data_pipeline/schema.py"),
    Rule("unknown-role", ERROR, "a message has a role that no template knows", "use system, user or assistant"),
    Rule("role-order", ERROR, "roles do not alternate", "write user, assistant in turn, behind an optional system message"),
    Rule("marker-count", ERROR, "markers in the text and media files differ in number", "write one marker for each that is owed"),
    Rule(
        "frame-times", ERROR, "times do not rise, lie outside the clip, or ask for more frames than it has", "correct the times"
    ),
    Rule("media-missing", ERROR, "a media file is named but not there", "add the file or remove the sample"),
    Rule("media-unused", WARNING, "a media file is stored but no field names it", "remove it: it is read for nothing"),
    Rule("media-unreadable", ERROR, "a media file cannot be opened", "store it again"),
    Rule("no-media-info", ERROR, "a clip's rate, duration or number of frames is not stored", "write the shard with prepare"),
    Rule("media-mismatch", ERROR, "stored size, rate, duration or frames are not the file's", "write the shard again"),
    Rule("undecodable", ERROR, "a media file breaks while it is decoded", "store it again or remove the sample"),
    Rule(
        "damaged-frames",
        ERROR,
        "frames of a clip are damaged, and training refuses such frames",
        "store it again or remove the sample",
    ),
    Rule("frames-missing", ERROR, "a clip ends before the frames that are wanted of it", "store it again"),
    Rule("fewer-frames", WARNING, "a clip has fewer frames than its header states", "store it again"),
    Rule("still-clip", WARNING, "all frames of a clip are the same", "check the clip; an image would do"),
    Rule("blank-media", WARNING, "a picture or all frames of a clip have a single colour", "check the file"),
    Rule("empty-answer", WARNING, "an assistant message says nothing", "write the answer or remove the turn"),
    Rule("special-token", WARNING, "text holds the name of a special token that has no place there", "remove or rewrite it"),
    Rule("no-license", WARNING, "the field license is empty", "state it: `moss data import --license`"),
    Rule("no-source", WARNING, "the field source is empty", "say where the media come from"),
    Rule("does-not-fit", ERROR, "the stage leaves the sample out", "shorten it, or raise the stage's bounds"),
    Rule("no-learned-token", ERROR, "nothing in the sample is learned in this stage", "add words or silence to an answer"),
    Rule("refused", ERROR, "the loader refuses the sample in this stage", "do as the sentence says"),
    Rule("truncated", WARNING, "the sample is cut to the stage's length", "shorten it, or raise stage.sequence_length"),
    Rule("realtime-grid", WARNING, "times lie on no regular grid from 0 on", "lay frames in even steps"),
    Rule("realtime-markers", WARNING, "a timed dialogue's clip has no marker for each frame", "use markers per_frame"),
    Rule("realtime-gap", WARNING, "a frame is followed by neither silence nor words", "write <|silence|> behind it"),
    Rule(
        "realtime-grammar",
        ERROR,
        "silence, words and frames stand where no live stream can have them",
        "one <|silence|> or words behind each frame, nothing behind <|silence|> but a frame or the end of the turn",
    ),
    Rule("realtime-start", NOTE, "a turn begins without silence", "none: an answer may begin before the next frame"),
    Rule("realtime-leak", WARNING, "a text names a second or a time code, which nobody sees live", "say it without the time"),
    Rule("realtime-repeat", WARNING, "the same is said twice on end", "remove one of the two"),
    Rule("realtime-dialogue", ERROR, "a generated dialogue breaks one of its own rules", "see docs/realtime-dialogues.md"),
)
RULES = {rule.name: rule for rule in _TABLE}


@dataclass(frozen=True)
class Finding:
    """One fault in one place."""

    rule: str
    """A key of `RULES`."""
    key: str
    """The sample's; empty where a whole shard or folder is meant."""
    where: str
    """Shard, or annotation file and line."""
    text: str
    """What was found."""

    @property
    def severity(self) -> str:
        return RULES[self.rule].severity
