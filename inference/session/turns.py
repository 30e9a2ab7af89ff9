"""What follows a sampled token: prompts that cut an answer, stops, and the marks of frames, in the form of training."""

from __future__ import annotations

from typing import Any

from data_pipeline.text.template import encode_interruption
from data_pipeline.text.tokenizer import Tokenizer
from inference.session.arrivals import Arrival
from inference.session.events import EventLog
from inference.text_stream import TextStream


class TurnTaker:
    """Knows whether an answer is being said, and builds the rows that end or interrupt it.

    Attributes:
        speaking: the last token was text.
        closed: a stop closed the answer and nothing has come since: no token may be sampled.
        newest_frame: number of the newest frame that the model has seen.
    """

    def __init__(self, tokenizer: Tokenizer, log: EventLog) -> None:
        self.speaking = False
        self.closed = False
        self.newest_frame: int | None = None
        self.text = TextStream(tokenizer)
        self._tokenizer, self._log = tokenizer, log

    def say(self, token: int) -> None:
        """A sampled token: its event, with the text that it completes."""
        silent = token == self._tokenizer.silence_id
        if silent:
            rest = self.text.flush()
            text = self._tokenizer.decode([token])
            if rest:
                self._log.emit("token", frame=self.newest_frame, text=rest)
        else:
            text = self.text.push(token)
        self.speaking = not silent
        self._log.emit("silence" if silent else "token", frame=self.newest_frame, token=token, text=text)

    def hear(self, spoken: list[Arrival], step: int) -> list[Arrival]:
        """Prompts and controls are there: their events, and what is left of a turn that a stop closes.

        Returns:
            The prompts. Those before a stop are opened and closed again without an answer.
        """
        prompts: list[Arrival] = []
        for arrival in spoken:
            if arrival.prompt is not None:
                self._log.emit("prompt", t=arrival.t, text=arrival.prompt, step=step)
                self._cut()
                self.closed = False
                prompts.append(arrival)
                self._log.emit("turn_start", text=arrival.prompt)
            elif arrival.control == "stop":
                self._log.emit("stop", t=arrival.t, step=step)
                if self.speaking or prompts:
                    self._cut("stop")
                    self.closed = True
        return prompts

    def splice(self, prompts: list[Arrival], frames: list[int]) -> list[int]:
        """The rows behind the sampled token; call it when something is there to be answered.

        In training a turn's first frame follows a silence. A turn that a stop closed is followed by one whose user said
        nothing, as the first of a session is.

        Args:
            prompts: in order.
            frames: numbers of the frames that come with them.
        """
        tokenizer = self._tokenizer
        # A marker of a frame in what the user says has no frame: it is left out, the session goes on.
        markers = (tokenizer.image_id, tokenizer.video_id)
        texts = [arrival.prompt or "" for arrival in prompts]
        if self.closed:
            texts.append("")
            self._log.emit("turn_start")
        rows = [token for text in texts for token in encode_interruption(text, tokenizer) if token not in markers]
        if texts and frames:
            rows.append(tokenizer.silence_id)
            self._log.emit("silence", frame=self.newest_frame, token=rows[-1], text=tokenizer.decode(rows[-1:]))
        elif self.speaking:
            for number in frames:
                self._log.emit("frame_during_speech", frame=number)
        self.closed = False
        return rows + [tokenizer.image_id] * len(frames)

    def flush(self) -> None:
        """Let out the text of an unfinished character."""
        rest = self.text.flush()
        if rest:
            self._log.emit("token", frame=self.newest_frame, text=rest)

    def state(self) -> dict[str, Any]:
        """What a restored session has to know."""
        held = self.text.held
        return {"speaking": self.speaking, "closed": self.closed, "newest_frame": self.newest_frame, "held": held}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.speaking, self.closed, self.newest_frame = state["speaking"], state["closed"], state["newest_frame"]
        for token in state["held"]:
            self.text.push(token)

    def _cut(self, reason: str = "") -> None:
        if self.speaking:
            self._log.emit("turn_interrupted", frame=self.newest_frame, reason=reason)
        self.speaking = False
        self.text.flush()
