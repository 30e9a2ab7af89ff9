"""`RankProcesses` with jobs that end in every way; says so where each is told as it should be."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from moss_train.preflight.rank_processes import OF_ANOTHER, RankProcesses


def _work(job: dict[str, Any]) -> dict[str, Any]:
    match job["what"]:
        case "fail":
            raise ValueError("no such luck\nand a second line")
        case "die":
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
    return {"answer": job["what"]}


def main() -> None:
    with RankProcesses(_work) as processes:
        assert processes.run([], 1.0) == []
        fine, failed, dead, hung = processes.run([{"what": what} for what in ("fine", "fail", "die", "hang")], 1.0)
        assert fine == {"answer": "fine"}
        assert failed == {"error": "ValueError: no such luck"}
        assert dead == {"error": "ended by SIGKILL: last words"}
        assert hung == {"error": "not done within 1 s"}
        begin = time.monotonic()
        assert processes.run([{"what": "fail"}, {"what": "hang"}], 60.0, together=True)[1] == {"error": OF_ANOTHER}
        assert processes.run([{"what": "hang"}], 60.0, is_vain=lambda: True) == [{"error": OF_ANOTHER}]
        assert time.monotonic() - begin < 30
        assert processes.run([{"what": "fine"}], 60.0, is_vain=lambda: True) == [{"answer": "fine"}]
        assert processes.run([{"what": "fine"}], 60.0) == [{"answer": "fine"}]
    print("as expected")


if __name__ == "__main__":
    main()
