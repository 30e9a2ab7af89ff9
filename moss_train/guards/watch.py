"""What watches a rank while its main thread trains: hanging, lost ranks, and what another rank ended of.

Two threads: one beats the pulse on the board and acts on what it reads there, the other never waits for anything and judges
time. The first cause that reaches the board is the one with which all ranks end; one rank of each node prints it.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch.distributed as dist

from moss_train.config.schema import RunConfig
from moss_train.guards.board import Board, open_board, store_is_of_first_rank
from moss_train.guards.cause import EXIT_HANG, EXIT_LOST_RANK, Cause, Whereabouts, end_process
from moss_train.guards.ending import FAILED, Ending, ending_since, write_ending
from moss_train.guards.hang import FOLDER, Report, explain, ranks_of
from moss_train.guards.heartbeat import Silence, lost_sentence, pulsing_pause, silent_ranks
from moss_train.guards.nccl_trace import pending_collective, write_trace
from moss_train.guards.position import Position
from moss_train.guards.stack_file import StackFile
from moss_train.guards.stacks import main_thread_spot
from moss_train.parallel.node_name import node_name

_LOCAL_GRACE = 6.0
"""Seconds after a closed connection in which a launcher of the same machine ends the others by itself, and says why."""
_WRITING = 5.0
"""Seconds that the run folder has to take the cause."""


class Watch:
    """Of one rank; `start` before anything can hang, `stop` when no other rank is waited for any more.

    Args:
        config: limits, and the run folder.
        who: this process.
        board: None for a world of one rank.
    """

    def __init__(self, config: RunConfig, who: Whereabouts, board: Board | None) -> None:
        guard = config.guard
        self.position = Position(guard.hang_seconds, guard.slow_seconds, config.data.worker_timeout_seconds)
        self.host = node_name()
        self.who = who
        self._board = board
        self._hang_seconds = guard.hang_seconds
        self._run_dir = config.run_dir
        self._began = time.time()
        self._lost_seconds = guard.lost_rank_seconds
        self._tick = min(2.0, max(0.1, guard.lost_rank_seconds / 15))
        self._stacks = StackFile(Path(config.run_dir) / FOLDER, who.rank, 0.7 * guard.lost_rank_seconds)
        self._stopped = threading.Event()
        self._hung_at: float | None = None
        self._closed = self._told = self._said = False
        self._heard = 0
        self._answered = time.monotonic()
        self._next = Silence(self._answered)
        self._ending = threading.Lock()
        loops = [self._judge_time, *([self._beat] if board is not None else [])]
        self._threads = [threading.Thread(target=loop, name=f"moss{loop.__name__}", daemon=True) for loop in loops]

    def start(self) -> None:
        """Begin to watch."""
        if self._board is not None:
            self._board.write(f"host/{self.who.rank}", self.host)
            self._board.pulse()
        for thread in self._threads:
            thread.start()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Within it the start has its time limit."""
        self.position.at("start", 0)
        try:
            yield
        finally:
            self.position.rest()

    def stop(self) -> None:
        """End without a cause: the others do not miss this rank."""
        if self._stopped.is_set():
            return
        self.position.rest()
        if self._board is not None:
            try:
                self._board.leave()  # where no answer comes, the thread that judges time ends this process
            except dist.DistError:  # the store has ended before
                self._board = None
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * self._tick + 2.0)
        self._stacks.close()

    def tell(self, sentence: str, code: int, shown: str | None = None) -> int:
        """This rank ends of something that the others cannot see: they end with the same sentence.

        Args:
            sentence: the cause as other nodes print it.
            code: exit code of all ranks.
            shown: what is printed here, if this cause is the first; None where it stands there already.

        Returns:
            The code with which to end.
        """
        with self._ending:  # the other threads leave the end to the caller
            self._told = True
            found = Cause(sentence, code, self.who.rank, self.who.node)
            if self._board is not None:
                with suppress(dist.DistError):  # the store is gone: what ended it speaks
                    found = Cause.from_json(self._board.tell_first("cause", found.to_json()))
            own = found.author == self.who.rank
            text = shown if own else f"moss: error: {found.sentence}"
            if self.who.speaks(found):
                self._said = True
                if text is not None:
                    print(text, file=sys.stderr, flush=True)
                self._record(found)
            if self._board is not None:
                self._linger(self._board, found)
            self._stacks.close()
        return found.code

    def tell_and_say(self, sentence: str, code: int) -> int:
        """As `tell`, and printed here."""
        return self.tell(sentence, code, f"moss: error: {sentence}")

    def wait_for_cause(self) -> None:
        """A connection was closed by another rank: look for the lost one at once, and give the cause time to end this process."""
        if self._board is None:
            return
        self._closed = True
        with suppress(dist.DistError):  # the store is gone as well; the other thread counts its silence
            self._board.tell_first("closed", str(self.who.rank))
        time.sleep(self._patience() + 8 * self._tick)

    def _patience(self) -> float:
        """Seconds of silence after which a rank, or the store, is lost."""
        return min(self._lost_seconds, max(3 * self._tick, _LOCAL_GRACE)) if self._closed else self._lost_seconds

    def _beat(self) -> None:
        """The thread that talks to the board."""
        assert self._board is not None
        while not self._stopped.wait(self._tick):
            try:
                self._turn(self._board)
            except dist.DistError:
                self._closed = True  # the store has closed the connection: the other thread counts its silence
                if self._hung_at is not None:
                    return

    def _turn(self, board: Board) -> None:
        board.pulse()
        self._answered = time.monotonic()
        self._listen(board)
        if self._hung_at is not None:
            self._ask_all(board)
            return
        following = (self.who.rank + 1) % self.who.world_size
        silence = self._next.hear(board.pulse_of(following), time.monotonic())
        if silence > self._patience() and not self._stopped.is_set():
            self._miss(board, following, silence)

    def _listen(self, board: Board) -> None:
        """Act on what is new on the board."""
        if (news := board.news()) == self._heard:
            return
        self._heard = news
        if (text := board.read("cause")) is not None:
            self._end(Cause.from_json(text))
        if board.read("closed") is not None:
            self._closed = True
        if board.read("hang") is not None and self._hung_at is None:
            self._hung_at = time.monotonic()

    def _miss(self, board: Board, following: int, silence: float) -> None:
        """The next rank is silent: find out who else is, and end all."""
        others = [rank for rank in range(self.who.world_size) if rank != self.who.rank]
        lost = silent_ranks(board, others, lambda: pulsing_pause(board, 2.5 * self._tick, self._tick))
        self._listen(board)
        if following in lost and self._hung_at is None:
            written = [path for path in map(self._stacks.path_of, lost) if path.is_file() and path.stat().st_size]
            sentence = lost_sentence(board, lost, silence, self._closed, written)
            self._announce(board, Cause(sentence, EXIT_LOST_RANK, self.who.rank, self.who.node, tuple(lost)))

    def _ask_all(self, board: Board) -> None:
        """Some rank hangs: every rank says where it is, and one judges."""
        begin, judging, rank = time.monotonic(), False, self.who.rank
        board.tell_first("hang", str(rank))
        board.write(f"hang/{rank}", self._report().to_json())
        reports: dict[int, Report] = {}
        while not self._stopped.is_set():
            elapsed = time.monotonic() - begin
            if not judging and (rank == 0 or elapsed > 3 * self._tick + 1):
                judging = board.tell_first("judge", str(rank)) == str(rank)
            if judging:
                for other in range(self.who.world_size):
                    if other not in reports and (text := board.read(f"hang/{other}")) is not None:
                        reports[other] = Report.from_json(text)
                if len(reports) == self.who.world_size or elapsed > max(3.0, 5 * self._tick):
                    sentence = explain(reports, self.who.world_size, self._limit(), self._stacks.folder)
                    silent = tuple(other for other in range(self.who.world_size) if other not in reports)
                    self._announce(board, Cause(sentence, EXIT_HANG, rank, self.who.node, silent))
            pulsing_pause(board, self._tick, self._tick)
            self._answered = time.monotonic()
            self._listen(board)

    def _announce(self, board: Board, cause: Cause) -> None:
        self._end(Cause.from_json(board.tell_first("cause", cause.to_json())))

    def _limit(self) -> float:
        limit = self.position.place.limit
        return limit if limit < float("inf") else self._hang_seconds

    def _report(self) -> Report:
        """Where this rank is, and its stacks beside it."""
        place, spot = self.position.place, main_thread_spot()
        collective = spot.collective or pending_collective()
        seconds = time.monotonic() - place.since if place.phase else 0.0
        report = Report(self.who.rank, self.host, place.step, self.position.phase, collective, spot.where, round(seconds, 1))
        if self._stacks.write(report.to_json()):
            write_trace(self._stacks.path.with_suffix(".nccl.json"))
        return report

    def _judge_time(self) -> None:
        """The thread that waits for nothing."""
        look = min(1.0, self._tick)
        self._stacks.wind()
        last = time.monotonic()
        while not self._stopped.wait(look):
            now = time.monotonic()
            if now - last > 5 * look + 2.0:  # this process stood still: others did not
                self._forgive(now - last)
            last = now
            self._stacks.wind()
            if self._board is not None and now - self._answered > self._patience():
                self._end(self._no_store(now - self._answered), ask=False)
            if self._hung_at is None and self.position.overdue(now):
                self._hung_at = now
            if self._hung_at is not None and (self._board is None or now - self._hung_at > 20 * self._tick + 10.0):
                report = self._report()
                sentence = explain({report.rank: report}, self.who.world_size, self._limit(), self._stacks.folder)
                self._end(Cause(sentence, EXIT_HANG, -1, self.who.node), ask=False)

    def _forgive(self, seconds: float) -> None:
        self.position.forgive(seconds)
        self._next.forgive(seconds)
        self._answered += seconds

    def _no_store(self, silence: float) -> Cause:
        address = os.environ.get("MASTER_ADDR", "?")
        lost: tuple[int, ...] = (0,)
        if store_is_of_first_rank():
            what = f"rank 0 on host {address}, which keeps the ranks' store,"
        else:
            size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            lost = tuple(range(size))
            what = f"torchrun on host {address}, which keeps the ranks' store and {ranks_of(list(lost))},"
        sentence = (
            f"{what} gave no sign of life for {silence:.0f} s; all ranks end, the newest checkpoint stands: start the run again "
            "to continue"
        )
        return Cause(sentence, EXIT_LOST_RANK, -1, self.who.node, lost)

    def _end(self, cause: Cause, ask: bool = True) -> None:
        """Print the cause where it is this rank's turn, and end the process.

        Args:
            ask: False where the store may not answer: a host that is cut off would wait for it for ever.
        """
        mine = self._ending.acquire(timeout=-1 if ask else 3 * self._tick + 1.0)
        if mine and (self._stopped.is_set() or self._told):
            self._ending.release()
            return
        if self.who.speaks(cause) and not self._said:  # not mine: another thread has a cause, and waits for the store
            self._said = True
            print(f"moss: error: {cause.sentence}", file=sys.stderr, flush=True)
            self._record(cause, ask)
        if self._board is not None and ask:
            self._linger(self._board, cause)
        self._stacks.close()
        end_process(cause.code)

    def _record(self, cause: Cause, ask: bool = True) -> None:
        """For whoever decides whether to start the run again."""
        if not ask and ending_since(self._run_dir, self._began):
            return  # a host that is cut off takes the others for lost; those that still have the store know better
        author = -1 if cause.lost else cause.author  # who misses others is not to blame
        hosts = [self._host_of(rank) if ask or rank == self.who.rank else "" for rank in (*cause.lost, author)]
        known = tuple(hosts[:-1]) if all(hosts[:-1]) else ()
        ending = Ending(
            FAILED, cause.code, cause.sentence, ranks=cause.lost, hosts=known, author=author, host=hosts[-1],
            world_size=self.who.world_size,
        )  # fmt: skip
        # The file system may be what hangs, and must not keep this process from its end.
        writer = threading.Thread(target=write_ending, args=(self._run_dir, ending), daemon=True)
        writer.start()
        writer.join(_WRITING)

    def _host_of(self, rank: int) -> str:
        """Empty where it cannot be found out any more."""
        if rank == self.who.rank:
            return self.host
        if rank < 0 or self._board is None:
            return ""
        with suppress(dist.DistError):
            return self._board.read(f"host/{rank}") or ""
        return ""

    def _linger(self, board: Board, cause: Cause) -> None:
        """All know the cause, and the ones that print it have done so, before a launcher sees the first process end."""
        deadline = time.monotonic() + 2.5 * self._tick
        with suppress(dist.DistError):
            board.count("know")
            while time.monotonic() < deadline and board.counted("know") < self.who.world_size - len(cause.lost):
                time.sleep(0.1)
            if self.who.rank == 0:
                time.sleep(0.4)  # the store often lives in this process: the others go first


_current: Watch | None = None


def start_watch(config: RunConfig, rank: int, world_size: int) -> Watch:
    """Watch this process from now on, instead of what was watched before; the process group must be there."""
    global _current
    if _current is None:
        atexit.register(_stop)  # a thread that the interpreter ends inside the store's code would abort the process
    _stop()
    board = open_board(rank, world_size, patience=60.0)
    _current = Watch(config, Whereabouts.of_environment(rank, world_size), board)
    _current.start()
    return _current


def _stop() -> None:
    if _current is not None:
        _current.stop()


def current_watch() -> Watch | None:
    """What watches this process, if anything does."""
    return _current
