"""`python -m aigveval` is the command `aigveval`."""

from .cli import main

if __name__ == "__main__":
    main()
