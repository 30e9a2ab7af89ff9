"""Cross-attention from packed rows to their ranges of frames: one function, one backend a file.

`plan` holds the ranges and what each backend derives from them once a micro-batch; `attention` is the function;
`reference` is plain torch, `flex` FlexAttention over block lists, `varlen` unmasked flash calls over rectangles. `dense` is the
exception, one mask of rows by keys: what the others are measured against.
"""
