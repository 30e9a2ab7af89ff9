"""`engine=deepspeed`: the same model, data and monitors, data parallel only, with ZeRO stages 1 to 3 of DeepSpeed.

Frames are encoded by the rank that reads them, so ranks wait for the one with most frames: it is the baseline that the
decoupled step is compared with. Nothing outside this folder imports `deepspeed`, and nothing here does before a run asks
for it.
"""
