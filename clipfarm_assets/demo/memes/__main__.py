"""``python -m clipfarm_assets.demo.memes``."""

import sys

from clipfarm_assets.demo.memes.run import main

sys.exit(main())
