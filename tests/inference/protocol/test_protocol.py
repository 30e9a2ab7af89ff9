"""The queue protocol with clients as the reference has them: its threads, its listener, its dictionaries."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipeline.text.prompts import DEFAULT_PROMPTS
from inference.evaluation.schema import TraceEvent
from inference.offline import Answerer, question_rows
from inference.protocol import DONE, ERROR, ROUND_END, ROUND_START, SILENCE, QueueModel, is_end
from inference.protocol.forwarder import Forwarder
from inference.protocol.images import frame_of
from inference.protocol.model import EARLY
from inference.protocol.realtime import Fragments
from inference.session.settings import SessionSettings
from inference.sources.media import read_media
from model.errors import InputError
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.clips import write_clip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer.vocab_size)
    tensors = random_tensors(config, seed=11)
    tensors["language_model.lm_head.weight"][tokenizer.silence_id] *= 5
    folder = tmp_path_factory.mktemp("protocol")
    return write_checkpoint(folder / "realtime", config, tokenizer=tokenizer, tensors=tensors, stage="sft_realtime")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> QueueModel:
    return QueueModel.from_pretrained(checkpoint, device="cpu")


def _picture(level: int) -> Image.Image:
    return Image.fromarray(np.full((20, 28, 3), level, dtype=np.uint8))


@contextlib.contextmanager
def _generating(model: QueueModel, queues: list[queue.Queue[Any]], **options: Any) -> Iterator[threading.Thread]:
    """The generator in a thread of its own, stopped at the end as the reference's main does: stop, then join for 3 seconds."""

    def generate() -> None:
        with contextlib.suppress(InputError):
            model.real_time_generate(*queues, None, **{"do_sample": True, "max_new_tokens": 86400, **options})

    thread = threading.Thread(target=generate)
    thread.start()
    try:
        yield thread
    finally:
        model.stop_real_time_generate()
        thread.join(timeout=3)
        assert not thread.is_alive()


def _listen(token_queue: queue.Queue[str], idle_timeout: float) -> tuple[str, int]:
    """The reference's listener, restated: one pending fragment is shown when the next one is there or the queue is empty for a
    moment; a round start discards it; silence is told once per run; an end marker, or idleness after something came, ends it.

    Returns:
        (the text shown, times that silence was told).
    """
    shown, banners, pending = "", 0, None
    silent, heard, last = False, False, time.monotonic()
    while True:
        try:
            fragment = token_queue.get(timeout=0.1)
        except queue.Empty:
            if pending is not None:
                shown, pending = shown + pending, None
            if heard and time.monotonic() - last > idle_timeout:
                return shown, banners
            continue
        last, heard = time.monotonic(), True
        if fragment == "<|round_start|>":
            pending = None
            shown += "|"
            continue
        if pending is not None:
            shown, pending = shown + pending, None
        if fragment in ("[DONE]", "<|round_end|>") or fragment.startswith("[ERROR]"):
            return shown, banners
        if fragment == "<|silence|>":
            banners += not silent
            silent = True
        else:
            silent, pending = False, fragment


def test_a_stop_that_comes_before_its_generator_is_not_lost(model: QueueModel) -> None:
    time.sleep(EARLY)  # generators of other tests have ended
    out: queue.Queue[str] = queue.Queue()
    model.stop_real_time_generate()  # nothing runs, and what this thread does next is no stop's affair
    assert model.real_time_generate(queue.Queue(), queue.Queue(), out, max_new_tokens=1) == "max_new_tokens"
    time.sleep(EARLY)
    out, go, reasons = queue.Queue(), threading.Event(), list[str]()

    def late() -> None:
        go.wait(20)
        reasons.append(model.real_time_generate(queue.Queue(), queue.Queue(), out))

    thread = threading.Thread(target=late)
    thread.start()
    model.stop_real_time_generate()
    go.set()
    thread.join(20)
    assert reasons == ["stopped"] and list(out.queue)[-1] == DONE and out.qsize() <= 2
    model.stop_real_time_generate()  # of the one that has just ended: not of the next
    assert model.real_time_generate(queue.Queue(), queue.Queue(), out, max_new_tokens=1) == "max_new_tokens"


def test_a_stop_before_a_thread_is_started_is_not_for_it(model: QueueModel) -> None:
    time.sleep(EARLY)
    model.stop_real_time_generate()
    reasons: list[str] = []
    queues: list[queue.Queue[Any]] = [queue.Queue() for _ in range(3)]
    thread = threading.Thread(target=lambda: reasons.append(model.real_time_generate(*queues, max_new_tokens=1)))
    thread.start()
    thread.join(20)
    assert reasons == ["max_new_tokens"]


def test_the_references_client_works_unchanged(model: QueueModel) -> None:
    queues: list[queue.Queue[Any]] = [queue.Queue(), queue.Queue(), queue.Queue()]
    image_queue, prompt_queue, token_queue = queues

    def feed() -> None:
        for level in (20, 200, 90, 230):
            image_queue.put(_picture(level))
            time.sleep(0.05)

    with _generating(model, queues, seed=3, max_tokens_per_turn=100, max_new_tokens=150):
        feeder = threading.Thread(target=feed)
        feeder.start()
        time.sleep(0.1)
        prompt_queue.put("what colour is the ball ?")
        shown, banners = _listen(token_queue, idle_timeout=0.5)
        feeder.join()
    assert shown.count("|") == 1 and len(shown) > 1
    assert banners >= 1 and SILENCE not in shown
    rest = [token_queue.get_nowait() for _ in range(token_queue.qsize())]
    assert not rest or (rest[-1] == DONE and is_end(rest[-1]))  # the listener may have taken it


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_frames_are_encoded_as_they_arrive_and_the_greedy_answer_is_that_of_a_cpu(
    checkpoint: Path, model: QueueModel, tmp_path: Path
) -> None:
    on_gpu = QueueModel.from_pretrained(checkpoint, device="cuda", dtype="fp32")
    test_the_references_client_works_unchanged(on_gpu)
    clip = str(write_clip(tmp_path / "a.mp4", [20, 90, 160, 230]))
    query = {"prompt": "what colour ?", "videos": [clip], "generate_kwargs": GREEDY}
    assert _ask(on_gpu, query) == _ask(model, query)


def test_an_idle_second_costs_no_processor_time(model: QueueModel) -> None:
    queues: list[queue.Queue[Any]] = [queue.Queue(), queue.Queue(), queue.Queue()]
    with _generating(model, queues, do_sample=False, settings=SessionSettings(idle_timeout=0.0)):
        queues[0].put(_picture(200))
        assert queues[2].get(timeout=10)
        with contextlib.suppress(queue.Empty):  # until it has nothing more to say
            while queues[2].get(timeout=0.5):
                pass
        begin = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - begin < 0.05
        queues[1].put("left")  # and it still listens, though its idle time is over
        while queues[2].get(timeout=10) != ROUND_START:
            pass


def test_the_limit_of_tokens_ends_it_and_a_second_one_is_refused(model: QueueModel) -> None:
    queues: list[queue.Queue[Any]] = [queue.Queue(), queue.Queue(), queue.Queue()]
    queues[0].put(_picture(60))
    with _generating(model, queues, max_new_tokens=100000) as thread:
        queues[2].get(timeout=10)
        with pytest.raises(InputError, match="is running already"):
            model.real_time_generate(queue.Queue(), queue.Queue(), queue.Queue())
        assert thread.is_alive()
    for level in range(12):
        queues[0].put(_picture(level * 20))
    out: queue.Queue[str] = queue.Queue()
    assert model.real_time_generate(queues[0], queues[1], out, max_new_tokens=5, do_sample=True, seed=1) == "max_new_tokens"
    fragments = [out.get_nowait() for _ in range(out.qsize())]
    assert fragments[-1] == DONE and 1 <= len(fragments) <= 7


def test_a_bad_limit_is_told_to_whoever_listens(model: QueueModel) -> None:
    out: queue.Queue[str] = queue.Queue()
    with pytest.raises(InputError, match="max_new_tokens is 0"):
        model.real_time_generate(queue.Queue(), queue.Queue(), out, max_new_tokens=0)
    assert out.get_nowait().startswith(f"{ERROR} max_new_tokens is 0") and out.empty()


def test_an_empty_prompt_begins_a_round_too_and_an_unheard_one_does_not() -> None:
    out: queue.Queue[str] = queue.Queue()
    fragments = Fragments(out)
    for text, reason in (("", ""), ("what ?", "stream_end")):
        fragments(TraceEvent(t=0.0, kind="prompt", text=text, reason=reason))
        fragments(TraceEvent(t=0.0, kind="turn_start", text=text))
    assert [out.get_nowait() for _ in range(out.qsize())] == [ROUND_START]


def test_what_is_no_picture_ends_it_with_one_message(model: QueueModel) -> None:
    queues: list[queue.Queue[Any]] = [queue.Queue(), queue.Queue(), queue.Queue()]
    queues[0].put("clip.mp4")
    with pytest.raises(InputError, match="a picture is str"):
        model.real_time_generate(*queues)
    messages = [queues[2].get_nowait() for _ in range(queues[2].qsize())]
    assert messages[-1].startswith(f"{ERROR} a picture is str; put PIL images") and DONE not in messages


def test_a_forwarder_leaves_nothing_of_its_own_behind() -> None:
    items: queue.Queue[Any] = queue.Queue(maxsize=1)
    taken: list[Any] = []
    forwarder = Forwarder(items, taken.append, taken.append)
    items.put(1)
    items.put(2)
    forwarder.stop()
    assert taken in ([1], [1, 2]) and items.empty()


def _ask(model: QueueModel, *queries: Any, chunk: int = 64) -> list[str]:
    new_queries: queue.Queue[Any] = queue.Queue()
    output: queue.Queue[str] = queue.Queue()
    for query in (*queries, {"stop_offline_generate": True}):
        new_queries.put(query)
    thread = threading.Thread(target=model.offline_generate, args=(new_queries, output), kwargs={"vision_chunked_length": chunk})
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return [output.get_nowait() for _ in range(output.qsize())]


GREEDY = {"temperature": 0.0, "max_new_tokens": 12}


def test_answers_come_in_pieces_and_equal_those_of_the_answerer(model: QueueModel, tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "a.mp4", [20, 90, 160, 230, 40, 120]))
    media = {"video_fps": 1.0, "video_minlen": 1, "video_maxlen": 6}
    query = {"prompt": "\nwhat colour ?", "videos": [clip], "media_kwargs": media, "generate_kwargs": GREEDY}
    pieces = _ask(model, query)
    assert pieces[-1] == ROUND_END and len(pieces) > 2
    frames = read_media(clip, None, 28, fps=1.0, min_frames=1, max_frames=6)
    rows = question_rows("\nwhat colour ?", 6, model.tokenizer)
    reply = Answerer(model.engine, model.tokenizer, max_new_tokens=12).reply(rows, frames)
    assert "".join(pieces[:-1]) == model.tokenizer.decode(reply)
    assert _ask(model, query, chunk=2) == pieces  # encoded in chunks of two


def test_images_and_modes_choose_the_prompt(model: QueueModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    reply = Answerer.reply

    def noting(self: Answerer, rows: Any, frames: torch.Tensor | None, on_text: Any = None) -> list[int]:
        asked.append(list(rows))
        return reply(self, rows, frames, on_text)

    monkeypatch.setattr(Answerer, "reply", noting)
    monkeypatch.setitem(model.engine.model.details, "stage", None)  # as a foreign checkpoint, which brings no text of its own
    base = {"prompt": "left", "images": [_picture(90), _picture(20)], "generate_kwargs": GREEDY}
    modes = [("no_thinking", "video"), ("deep_thinking", "video"), ("no_thinking", "text_image"), ("deep_thinking", "text_image")]
    pieces = _ask(model, *({**base, "thinking_mode": mode, "system_prompt_type": kind} for mode, kind in modes))
    assert pieces.count(ROUND_END) == 4
    for rows, (mode, kind) in zip(asked, modes, strict=True):
        text = model.tokenizer.decode(rows)
        assert DEFAULT_PROMPTS[kind] in text and rows.count(model.tokenizer.image_id) == 2
        assert ("<thinking>" in text) == (mode == "deep_thinking")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"prompt": "a", "thinking_mode": "hard"}, "thinking_mode is 'hard'; use no_thinking, deep_thinking"),
        ({"prompt": "a", "system_prompt_type": "x"}, "system_prompt_type is 'x'; use video, text_image"),
        ({"prompt": 7}, "prompt is int; it must be a string"),
        ({"promt": "a"}, "field 'promt' of a query is unknown; use"),
        ({"prompt": "a", "generate_kwargs": {"beams": 4}}, "field 'beams' of generate_kwargs is unknown"),
        ({"prompt": "a", "generate_kwargs": {"top_p": "x"}}, "generate_kwargs['top_p'] is 'x'; it must be a number"),
        ({"prompt": "a", "generate_kwargs": {"do_sample": 1}}, "generate_kwargs['do_sample'] is 1; it must be True or False"),
        ({"prompt": "a", "videos": ["none.mp4"]}, "none.mp4 does not exist"),
        ({"prompt": "a", "media_kwargs": 3}, "media_kwargs is int; it must be a dictionary"),
        ({"prompt": "a <|image|>"}, "contains <|image|>"),
        ({"prompt": "a", "generate_kwargs": {"max_new_tokens": 0}}, "max_new_tokens is 0"),
        ("what?", "a query is str; put dictionaries"),
    ],
)
def test_a_bad_query_is_one_error_and_the_next_one_is_answered(model: QueueModel, query: Any, message: str) -> None:
    messages = _ask(model, query, {"prompt": "left", "generate_kwargs": GREEDY})
    assert messages[0].startswith(ERROR) and message in messages[0] and "\n" not in messages[0]
    assert messages[-1] == ROUND_END and sum(m.startswith(ERROR) for m in messages) == 1


def test_an_engine_that_fails_is_one_error_too(
    model: QueueModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reply, calls = Answerer.reply, iter([True, False])

    def failing(self: Answerer, *rest: Any) -> list[int]:
        if next(calls):
            raise RuntimeError("out of\nmemory")
        return reply(self, *rest)

    monkeypatch.setattr(Answerer, "reply", failing)
    greedy = {"prompt": "left", "generate_kwargs": {"do_sample": False, "max_new_tokens": 4}}
    messages = _ask(model, greedy, greedy)
    assert messages[0] == f"{ERROR} out of memory" and messages[-1] == ROUND_END
    assert "Traceback" in capsys.readouterr().err


def test_pictures_of_any_mode_become_frames() -> None:
    for mode in ("RGB", "L", "RGBA", "P"):
        assert frame_of(_picture(100).convert(mode), 28).shape == (3, 28, 28)
    array = np.full((10, 20, 3), 9, dtype=np.uint8)
    assert int(frame_of(array, 28)[:, :14].max()) == 9
    with pytest.raises(InputError, match=r"a picture is float64 \[2, 2\]"):
        frame_of(np.zeros((2, 2)), 28)
