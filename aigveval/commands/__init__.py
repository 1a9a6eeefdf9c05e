"""One module per command of the command line; `aigveval.cli` lists them.

Heavy imports are inside the functions, so that `--help` answers at once.
"""
