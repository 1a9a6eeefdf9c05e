"""`python -m aigveval` is the command `aigveval`."""

import sys


def main() -> None:
    """Runs the command line; Ctrl-C while its modules are imported ends it in one line, too."""
    try:
        from .cli.app import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
