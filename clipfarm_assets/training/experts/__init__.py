"""Experts: pretrained models of one modality that tell classes. Imports torch: import them late."""
