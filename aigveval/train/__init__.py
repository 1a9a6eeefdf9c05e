"""Training, as `aigveval fit` runs it: one file per stage, and what the stages share.

May import `model`, `inference`, `features`, `data`, `presets`, `encoders`, `prompts` and the leaves
of the root.
"""
