"""``python -m limelight`` is the ``limelight`` command."""

from limelight.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
