"""What data must be: ids, tables, statuses, the schema lock, the manifest.

Everything here is a pure function or a constant. The pipelines call these functions to refuse,
the asset checks call the same functions to show.
"""
