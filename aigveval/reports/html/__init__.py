"""Reports as one HTML file each, which needs no network and nothing beside it."""
