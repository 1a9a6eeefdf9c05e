"""From a video and its prompt to an `Assessment`: assessor, engines, explanations, timeline.

May import `model`, `data`, `presets`, `encoders`, `prompts` and the leaves of the root.
"""
