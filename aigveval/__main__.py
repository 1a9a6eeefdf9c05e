"""`python -m aigveval` is the command `aigveval`."""

from .cli.app import main

if __name__ == "__main__":
    main()
