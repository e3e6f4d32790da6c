"""How well classes are told apart: metrics, their uncertainty, calibration, and plots."""
