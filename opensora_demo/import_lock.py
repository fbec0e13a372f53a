"""A lock for imports made where they are first needed.

transformers and diffusers take longer to import than torch, so that modules here import them inside functions. Both
put another object in `sys.modules` while they are imported; a second thread that waited for the first is then handed
the object that was there before, and fails with "cannot import name". One thread at a time, and none does.
"""

from __future__ import annotations

import threading

IMPORT_LOCK = threading.RLock()
