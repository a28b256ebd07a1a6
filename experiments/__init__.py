"""The pipeline's stages, one file each."""

import gc
import os
import signal
import sys

if sys.argv[0] == "-m" and "GRAPHPRUNING_PRELOADED" in os.environ:  # `make repro` starts it
    from experiments.handover import hand_over

    hand_over()  # and if nobody takes it, go on here as if nothing had been
    del hand_over, sys.modules["experiments.handover"]

from experiments.common.lazy import postpone

# Importing torch and what stands on it makes a million objects that all stay; to search them for
# garbage meanwhile takes a fifth of a stage's start. `Stage.main` switches the collector on again.
if sys.argv[0] == "-m":  # as `python -m experiments.STAGE` begins
    gc.disable()
    postpone()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing is half-written yet: Ctrl-C may simply end the process, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
