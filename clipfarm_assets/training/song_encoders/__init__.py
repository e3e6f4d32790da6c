"""Encoders of songs' lyrics, audio and MIDI. Imports torch: import its modules late."""
