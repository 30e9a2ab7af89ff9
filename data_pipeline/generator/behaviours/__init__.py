"""What a dialogue can teach: a file for each behaviour, which plans its questions, and the policy that answers all of them.

The rule of all of them: the assistant is silent unless it is asked, and the latest turn of the user alone decides what it does
from then on. So what is to be said at a frame follows from the frames so far and from what was asked; nothing is drawn by chance,
and the same words always ask for the same. `policy.TASKS` holds what can be asked for, `registry.PLANNERS` the behaviours.
"""
