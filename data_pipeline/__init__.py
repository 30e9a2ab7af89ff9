"""From annotations and media files to packed micro-batches: shards, loading, decoding, packing, the procedural world."""
