"""A sample store one can run everything on: real media, real quirks, a relation worth learning.

Nothing below this floor knows of it. `sample_store.make_sample_store` writes it, `edge_cases`
lists the hard cases in it and what must become of each, `planted` says what decides the views.
"""
