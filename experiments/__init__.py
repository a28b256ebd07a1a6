"""The pipeline's stages, one file each."""

import gc
import signal
import sys

from experiments.common.lazy import postpone

# Importing torch and what stands on it makes a million objects that all stay; to search them for
# garbage meanwhile takes a fifth of a stage's start. `Stage.main` switches the collector on again.
if sys.argv[0] == "-m":  # as `python -m experiments.STAGE` begins
    gc.disable()
    postpone()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing is half-written yet: Ctrl-C may simply end the process, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
