"""The models as transformers knows them: config, processor, network, checkpoint files.

May import `encoders`, `prompts` and the leaves of the root (`assessment`, `errors`, `files`).
"""
