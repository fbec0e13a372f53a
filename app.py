"""The page: `python app.py`, then open http://127.0.0.1:7860. The file a Hugging Face Space runs."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec

if "SPACES_ZERO_GPU" in os.environ and find_spec("spaces"):
    import_module("spaces")  # wants to be there before torch

from opensora_demo.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
