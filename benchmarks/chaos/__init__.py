"""Workers on one store while an adversary kills, drops, restarts and removes; then a proof."""
