"""``python -m clipfarm_assets.demo.songs``."""

import sys

from clipfarm_assets.demo.songs.run import main

sys.exit(main())
