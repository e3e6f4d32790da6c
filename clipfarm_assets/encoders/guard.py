"""Keeping one bad item one bad item."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import ContentMissing, MediaError

_ADDRESS: Final = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>")
"""How libraries name the file that they were given: another way each run, and reasons are kept."""


@contextmanager
def media_errors(doing: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a `MediaError` of one sentence.

    Wrap only the calls into a decoding library: a mistake of our own should stop the run. A library
    that cannot be imported is a broken installation and no medium's fault.

    Args:
        doing: What was tried, e.g. "decode the video".
    """
    try:
        yield
    except (MediaError, ContentMissing, ImportError):
        raise
    except MemoryError as error:
        msg = f"cannot {doing}: it asks for more memory than there is"
        raise MediaError(msg) from error
    except Exception as error:
        # Decoders are C libraries behind thin bindings: hostile bytes raise any type at all.
        told = _ADDRESS.sub("the file", str(error))
        reason = " ".join(told.split()) or "no reason given"
        msg = f"cannot {doing}: {type(error).__name__}: {reason}"
        raise MediaError(msg) from error


def unit_vector(values: NDArray[np.floating[Any]], what: str) -> NDArray[np.float32]:
    """`values`, a 1-D array, divided by its L2 norm (in float64), as float32.

    Raises:
        MediaError: The values are not finite, or all zero, so that they have no direction.
    """
    wide = values.astype(np.float64)
    norm = float(np.sqrt(np.sum(wide * wide)))
    if not np.isfinite(norm):
        msg = f"the {what} embedding is not finite: the model cannot embed this input"
        raise MediaError(msg)
    if norm == 0.0:
        msg = f"the {what} embedding is all zeros and has no direction: the input holds no signal"
        raise MediaError(msg)
    return (wide / norm).astype(np.float32)
