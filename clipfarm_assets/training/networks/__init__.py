"""Networks, and the one loop that fits them. Imports torch: import its modules late."""
