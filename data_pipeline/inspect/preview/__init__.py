"""A page of samples as the model will see them: frames with times, tokens with the loss mask, shared packs.

Samples are planned, decoded and fitted by the loader's own functions; `views.py` arranges what comes out.
"""
