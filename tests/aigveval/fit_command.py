"""`python tests/aigveval/fit_command.py fit CONFIG.yaml` is the command line with the encoders of
`fit_case`, for tests that start processes."""

import gc

gc.disable()  # until all is imported, of which nothing is garbage

from aigveval.cli.app import main  # noqa: E402
from aigveval.train import fit  # noqa: E402, F401  to have it imported

from tests.aigveval.fit_case import begin  # noqa: E402

if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    begin()
    main()
