"""Writes the run folder's report.html when the run ends, also with an error."""

from __future__ import annotations

import sys
from pathlib import Path

from model.errors import InputError
from moss_train.monitors.base import Monitor


class RunReport(Monitor):
    """Comes after everything that writes. It never ends a run with an error of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def finished(self) -> None:
        from moss_train.report.run_page import write_run_report

        try:
            write_run_report(self._folder)
        except InputError:
            return  # no step was done
        except Exception as error:  # a page must not hide why a run ended
            print(f"moss: report.html could not be written ({error}); `moss report {self._folder}` tries again", file=sys.stderr)
