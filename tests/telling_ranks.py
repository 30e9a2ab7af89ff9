"""Run on several ranks: each tells what it found at its start, and ends as it is told.

Usage: telling_ranks good|code|sleep
"""

from __future__ import annotations

import atexit
import json
import os
import random
import subprocess
import sys
import time


def main(how: str) -> None:
    rank = int(os.environ["RANK"])
    own = {"argv": sys.argv[1:], "main": __name__, "variable": os.environ.get("OWN"), "world": os.environ["WORLD_SIZE"]}
    here = {"hash": hash("order of sets"), "random": random.random(), "leads": os.getsid(0) == os.getpid(), "rank": rank}
    print("FOUND " + json.dumps(own | here) + "\n", end="", flush=True)  # in one write, also where nothing is buffered
    if how == "code" and rank == 1:
        sys.exit(5)
    if how == "sleep" and rank == 1:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
        print(f"CHILD {child.pid}\n", end="", flush=True)
        time.sleep(100)
    atexit.register(print, "END")


if __name__ == "__main__":
    main(sys.argv[1])
