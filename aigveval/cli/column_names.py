"""What the help of several commands says of the names of columns."""

from ..data.columns import ALIASES

COLUMN_NAMES = " ".join(
    f"Instead of `{name}` a column may be called {', '.join(f'`{other}`' for other in others)}."
    for name, others in ALIASES.items()
)
