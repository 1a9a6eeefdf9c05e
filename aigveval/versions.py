"""The version of aigveval, which stands in every row of results."""

__version__ = "0.1.0"
