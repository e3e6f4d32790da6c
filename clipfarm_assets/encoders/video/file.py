"""Opening a clip: which containers and codecs are read, which stream is the video, its limits."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Final

import av

from clipfarm_assets.encoders.base import MediaError

MAX_SIDE: Final = 8192
"""Pixels. A longer side is taken for an attack on memory, not for a clip."""

CODECS: Final = (
    "av1",
    "flv1",
    "h263",
    "h264",
    "hevc",
    "mjpeg",
    "mpeg1video",
    "mpeg2video",
    "mpeg4",
    "rawvideo",
    "vp8",
    "vp9",
)
"""What short clips are stored in, and frames as they are, of which the canaries are made.

FFmpeg decodes hundreds more, few of which are looked after.
"""

# Demuxers of media files. Without the list a playlist (ffconcat, HLS) or a session description in
# disguise makes the library open the files and addresses it names.
_OPEN_OPTIONS: Final = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,flv",
    "protocol_whitelist": "data",
    # By decoder, as some codecs have several: opening a file looks into its streams by them.
    "codec_whitelist": "av1,flv,h263,h264,hevc,libdav1d,libvpx,libvpx-vp9,mjpeg,mpeg1video,"
    "mpeg2video,mpeg4,mpegvideo,rawvideo,vp8,vp9",
}


@contextmanager
def open_video(raw: bytes, *, strict: bool = False) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream, all other streams discarded.

    Args:
        raw: The file's bytes.
        strict: Whether the decoder should give an error where it otherwise conceals damage.

    Raises:
        MediaError: Empty, not an allowed container or codec, without a video, or too large frames.
    """
    if not raw:
        msg = "cannot decode the video: the object is empty (0 bytes); upload the file again"
        raise MediaError(msg)
    try:
        opened = av.open(BytesIO(raw), options=dict(_OPEN_OPTIONS))
    except av.FFmpegError as error:
        msg = (
            "cannot decode the video: not a complete file of an allowed container (mp4, mov, mkv, "
            f"webm, avi, ts, flv): {error.strerror}"
        )
        raise MediaError(msg) from error
    with opened as container:
        # A cover picture is a video stream to the library, but not a video.
        streams = [
            stream
            for stream in container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams}) or ["no streams"]
            msg = f"cannot decode the video: no video stream in it, found {', '.join(kinds)}"
            raise MediaError(msg)
        video = streams[0]
        for stream in container.streams:
            if stream.index != video.index:
                stream.discard = av.stream.Discard.all
        if video.codec_context is None:
            msg = "cannot decode the video: it is in a codec that there is no decoder for"
            raise MediaError(msg)
        codec = video.codec_context.codec.canonical_name
        if codec not in CODECS:
            msg = (
                f"cannot decode the video: its codec is {codec}, expected one of "
                f"{', '.join(CODECS)}; convert it"
            )
            raise MediaError(msg)
        check_size(video.codec_context.width, video.codec_context.height)
        # The decoder's own limit: a size may also change in mid-stream.
        options = {"max_pixels": str(MAX_SIDE * MAX_SIDE)}
        if strict:
            options["err_detect"] = "explode"
        video.codec_context.options = options
        # One thread a clip: what a damaged stream yields must not depend on timing.
        video.codec_context.thread_count = 1
        yield container, video


def check_size(width: int, height: int) -> None:
    """Refuse frames larger than `MAX_SIDE`."""
    if max(width, height) > MAX_SIDE:
        msg = (
            f"cannot decode the video: its frames are {width}x{height} pixels, "
            f"the limit is {MAX_SIDE} a side"
        )
        raise MediaError(msg)
