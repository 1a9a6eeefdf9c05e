"""Damage to clean clips, in steps of severity, and the ladder of clips that is made of it.

May import `data`, `encoders`, `prompts` and the leaves of the root.
"""
