"""MIDI to arrays: reading files, piano rolls, event tokens, augmentation."""
