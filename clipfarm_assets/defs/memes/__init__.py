"""The meme pipeline: manifest -> splits -> shards -> experts -> fusion model -> evaluation."""
