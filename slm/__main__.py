# SPDX-License-Identifier: Apache-2.0
"""python -m slm"""

import sys

from slm.cli import main

sys.exit(main())
