"""``python -m limelight`` is the ``limelight`` command."""

import sys

sys.path.append(sys.path.pop(0))  # the present folder goes last, so that a file named yaml.py there hides no library

from limelight.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
