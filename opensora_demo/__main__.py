"""python -m opensora_demo"""

import sys

from opensora_demo.cli import main

sys.exit(main())
