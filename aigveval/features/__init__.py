"""Encoder tokens of videos: the cache on disk, and their export as files.

May import `encoders`, `prompts`, `data` and the leaves of the root.
"""
