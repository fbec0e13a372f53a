"""The page: `python app.py`, then open http://127.0.0.1:7860. The file a Hugging Face Space runs."""

import sys

from opensora_demo.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
