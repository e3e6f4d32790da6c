"""The gate before a faster precision: canaries, their comparison, and verdicts on record."""
