"""Imported by the step processes' fork server only, never by the definitions: see `executor`."""

import gc

# Heavy, unused and at module level, because the import is the point: steps are forked with it done.
# The definitions name this module as a text alone; a test holds them to loading none of these.
import matplotlib.backends.backend_agg  # noqa: F401
import torch  # noqa: F401, TID253
import transformers  # noqa: F401, TID253

# What is imported by now lives as long as the process. Steps that make objects by the hundred
# thousand would look through it in every full collection, and copy its pages by doing so.
gc.collect()
gc.freeze()
