"""The three fusion operators without parameters, on whole batches.

With ``v``, ``a``, ``t`` the video, audio and text vectors of a clip and ``m`` its text mask (1.0 if
the text vector is real, 0.0 if it is the zero placeholder):

* ``concat``    ``[v || a || t || m]``
* ``sum_pool``  ``[v' + a' + t' || m]``
* ``max_pool``  ``[max(v', a', t') || m]``

where a primed vector is padded with zeros to the longest of the three, so a padding zero takes part
in the maximum. Source: the fusion contract, section 4.1.
"""

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.schema_lock import fused_dim
from clipfarm_assets.contracts.statuses import Strategy

Vectors = NDArray[np.float32]


def fuse(
    strategy: Strategy,
    video: Vectors,
    audio: Vectors,
    text: Vectors,
    text_present: NDArray[np.bool_],
    *,
    append_mask: bool = True,
    out: Vectors | None = None,
) -> Vectors:
    """Fuse ``N`` clips at once.

    Args:
        strategy: Which operator.
        video: float32 ``(N, Dv)``.
        audio: float32 ``(N, Da)``.
        text: float32 ``(N, Dt)``; rows without text must be zero.
        text_present: bool ``(N,)``, the mask.
        append_mask: Append the mask as a last column of 1.0 and 0.0.
        out: float32 ``(N, fused_dim)``, where the result is to be written; by default a new array.

    Returns:
        float32 ``(N, fused_dim)``, C-contiguous if new. A row depends on that row alone, bit for
        bit: every operator is elementwise, and the sum is always ``(v + a) + t``.

    Raises:
        ValueError: An input or `out` is of another type or shape, row counts differ, or a
            placeholder row is not zero.
    """
    inputs = {"video": (video, "float32"), "audio": (audio, "float32"), "text": (text, "float32")}
    for name, (array, dtype) in (inputs | {"text_present": (text_present, "bool")}).items():
        ndim = 1 if name == "text_present" else 2
        if array.dtype != dtype or array.ndim != ndim:
            msg = f"{name} must be {dtype} of {ndim} axes: found {array.dtype} {array.shape}"
            raise ValueError(msg)
    rows = {len(video), len(audio), len(text), len(text_present)}
    if len(rows) != 1:
        msg = (
            f"fusing needs one row a clip in every input: found {len(video)} video, "
            f"{len(audio)} audio, {len(text)} text rows and {len(text_present)} mask values"
        )
        raise ValueError(msg)
    if text[~text_present].any():
        msg = "a clip without text must have a zero text vector: found other values"
        raise ValueError(msg)

    dv, da, dt = video.shape[1], audio.shape[1], text.shape[1]
    dim = fused_dim(strategy, video_dim=dv, audio_dim=da, text_dim=dt, append_mask=append_mask)
    fused = np.empty((len(video), dim), dtype=np.float32) if out is None else out
    if fused.shape != (len(video), dim) or fused.dtype != np.float32:
        msg = f"out must be float32 {(len(video), dim)}: found {fused.dtype} {fused.shape}"
        raise ValueError(msg)
    base = fused[:, :-1] if append_mask else fused
    if strategy == "concat":
        base[:, :dv] = video
        base[:, dv : dv + da] = audio
        base[:, dv + da :] = text
    else:
        base[:, :dv] = video
        base[:, dv:] = 0.0
        combine = np.add if strategy == "sum_pool" else np.maximum
        for vectors in (audio, text):
            padded = base[:, : vectors.shape[1]]
            combine(padded, vectors, out=padded)
            # The shorter operand's padding counts: max(-1, 0) is 0, and -0.0 + 0.0 is 0.0.
            rest = base[:, vectors.shape[1] :]
            combine(rest, np.float32(0.0), out=rest)
    if append_mask:
        fused[:, -1] = text_present
    return fused
