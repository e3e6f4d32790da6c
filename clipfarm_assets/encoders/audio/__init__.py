"""Sound to vectors: decoding as librosa does, wav2vec 2.0."""
