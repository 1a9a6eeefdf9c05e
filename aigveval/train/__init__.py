"""Training, as `aigveval fit` runs it.

The way down: `stages` reads the options (`config`) from YAML and runs one stage after the other;
`fit` is one stage: it reads the data (`rows`, `answers`, `dataset`), makes the model (`build`) and
trains it (`trainer`, whose loss terms are in `losses`; `grpo` for the stage of that name).

May import `model`, `inference`, `features`, `data`, `presets`, `encoders`, `prompts` and the leaves
of the root.
"""
