"""What happens in a video and when: the one typed intermediate between annotations of any kind and real-time dialogues.

`timeline` holds the types, `values` their JSON, `readers` one source format a file.
"""
