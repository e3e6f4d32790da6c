"""How vectors of several modalities become one: static operators here, learned modules later."""
