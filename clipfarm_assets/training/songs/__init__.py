"""Networks of songs: fitted, judged and kept. Imports torch: import its modules late."""
