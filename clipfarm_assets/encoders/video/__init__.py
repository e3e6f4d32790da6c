"""Clips to vectors: which frames are looked at, getting them out of the file, VideoMAE."""
