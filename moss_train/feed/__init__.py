"""How micro-batches come from the loader to the ranks of a replica, what is counted of them, and how all ranks end together.

One rank of each replica reads. The others get the rows; pixels go only where a frame is encoded (`moss_train.frames`).
Whatever goes wrong on a rank that reads, all ranks of the world learn it before the next collective.
"""
