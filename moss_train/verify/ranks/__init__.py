"""What several ranks must do together beside computing: saves and resumes in any layout, guards that decide on all ranks alike.

`names` says what is checked where, `findings` what is told of it; `training` is a tiny run, `resume`, `guards` and `golden` are
the checks, `process` is what every process does, `sweep` starts the processes, `report` prints.
"""
