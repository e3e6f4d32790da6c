"""Generated songs whose mood is told by words, harmony and rhythm, each in a planted share.

`corpus.make_songs` writes both tables and the files beside them into a store, `plan` is the law
that they follow, `edge_cases` lists the hard cases and what must become of each, and `run` is
``make demo-songs``.
"""
