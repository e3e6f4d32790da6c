"""Rows of memes for tests."""

from clipfarm_assets.contracts.meme_rows import MemeRow, sample_key


def meme(meme_id, *, image=None, caption=None, ocr="", labels=None, source=""):
    """A row that is like no other but for what is given."""
    return MemeRow(
        id=meme_id,
        key=sample_key(meme_id),
        image=f"{meme_id}.png" if image is None else image,
        caption=f"caption of {meme_id}" if caption is None else caption,
        ocr=ocr,
        labels={"abuse_hate": 0} if labels is None else labels,
        source=source,
    )
