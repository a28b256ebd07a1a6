"""The pipeline's stages, one file each."""

import gc
import sys

# Importing torch and what stands on it makes a million objects that all stay; to search them for
# garbage meanwhile takes a fifth of a stage's start. `Stage.main` switches the collector on again.
if sys.argv[0] == "-m":  # as `python -m experiments.STAGE` begins
    gc.disable()
