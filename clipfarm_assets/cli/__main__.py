"""``python -m clipfarm_assets.cli``: the ``clipfarm`` command."""

from clipfarm_assets.cli.app import main

if __name__ == "__main__":
    main()
