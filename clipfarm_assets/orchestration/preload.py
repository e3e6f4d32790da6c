"""Imported by the step processes' fork server only, never by the definitions: see `executor`."""

import torch  # noqa: F401, TID253 - the import is the point
import transformers  # noqa: F401, TID253
