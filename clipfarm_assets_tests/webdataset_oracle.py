"""webdataset as the oracle: plain loops over shards, in which nothing is skipped."""

import gc
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset


def raw_samples(path: Path) -> list[dict[str, Any]]:
    """What webdataset makes of one shard, undecoded.

    Raises:
        ValueError: Where it raises; no handler keeps it from that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to be collected
        try:
            return list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
        except ValueError as error:
            told = str(error)
        gc.collect()
    raise ValueError(told)


def decoded_samples(paths: Sequence[Path]) -> list[tuple[str, str, np.ndarray, dict[str, Any]]]:
    """Key, text, pixels and fields of every sample, as anybody would write it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        data = webdataset.WebDataset([str(path) for path in paths], shardshuffle=False)
        data = data.decode("pil").to_tuple("__key__", "txt", "png", "json", missing_is_error=True)
        return [(key, txt, np.asarray(png), fields) for key, txt, png, fields in data]
