"""The engine of many machines: the steps of embedding on a Ray cluster."""
