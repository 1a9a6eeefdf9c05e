"""Publishing a checkpoint on the Hugging Face Hub, with a generated model card.

May import `model`, `reports`, `evaluation`, `data`, `presets`, `encoders`, `prompts` and the leaves
of the root.
"""
