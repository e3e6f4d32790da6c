"""Whether all that a deployment refers to is there and is what was recorded; changes nothing."""
