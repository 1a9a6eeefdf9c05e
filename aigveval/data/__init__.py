"""Tables, manifests, labels and data sets as files.

May import `prompts` and the leaves of the root; `encoders` where videos are opened.
"""
