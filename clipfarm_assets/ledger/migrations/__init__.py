"""How a ledger's tables came to be what `schema` says, a file in `versions` for each step.

Run by alembic, which finds the files by itself; see `head`. A new step is a new file,
its number in `head.REVISIONS`, and the table as it is then in `schema`. Steps only add what older
code can live beside, and none is undone: to go back, restore a backup.
"""
