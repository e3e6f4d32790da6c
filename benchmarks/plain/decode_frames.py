"""Picking frames of a clip the plain way: decode from the start, keep those that were chosen."""

import io

import av
import numpy as np
from numpy.typing import NDArray


def decode_frames(raw: bytes, wanted: int) -> list[NDArray[np.uint8]]:
    """`wanted` frames, uniform over the clip, RGB; only these are converted."""
    with av.open(io.BytesIO(raw)) as container:
        count = container.streams.video[0].frames
    chosen = np.linspace(0, count - 1, wanted).astype(int).tolist()
    frames = []
    with av.open(io.BytesIO(raw)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(container.decode(stream)):
            if index in chosen:
                frames.append(frame.to_ndarray(format="rgb24"))
    return frames
