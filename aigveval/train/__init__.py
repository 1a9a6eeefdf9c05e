"""Training: losses, the manifest data set and the regression stage behind ``aigveval fit``."""
