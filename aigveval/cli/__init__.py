"""The command line: `app` lists the commands, one module per command.

Heavy imports are inside the functions, so that `--help` answers at once. May import everything;
nothing imports it.
"""
