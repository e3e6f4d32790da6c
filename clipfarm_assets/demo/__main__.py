"""``python -m clipfarm_assets.demo``."""

import sys

from clipfarm_assets.demo.run import main

sys.exit(main())
