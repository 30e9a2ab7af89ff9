"""Text of a sample: tokenizers, chat templates, labels, real-time augmentation and default system prompts.

Training and inference both take their token ids from here, so that a prompt is the same sequence in both.
"""
