"""How vectors of several modalities become one: static operators, and networks in `learned`."""
