"""Generated memes of which neither words nor picture tell the label alone, with every hard case.

`sample.make_memes` writes a set into a store, `edge_cases` lists the hard cases and what must
become of each, `run` is ``make demo-memes``.
"""
