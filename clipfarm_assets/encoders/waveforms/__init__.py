"""Segments of songs as sound: samples of one length, mel spectrograms, what is heard to begin when.

Nothing here knows a model; torch is imported by one function alone.
"""
