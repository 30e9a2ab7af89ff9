"""Foreign formats to annotations: share-GPT, Alpaca, LLaVA, registries of them, and clips with subtitles.

A format says what the messages and media of one row are (`sharegpt`, `alpaca`, `llava`); `importing` makes samples of them and
looks at each media file once; `registry` walks a LlamaFactory `dataset_info.json`. `subtitles` parses SRT and WebVTT into cues.
"""
