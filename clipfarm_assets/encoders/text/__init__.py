"""Words to vectors: tokens, packing many texts into one forward, MiniLM."""
