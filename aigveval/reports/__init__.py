"""What people look at: results files, tables, plots, HTML pages.

May import `evaluation`, `data`, `encoders`, `prompts` and the leaves of the root.
"""
