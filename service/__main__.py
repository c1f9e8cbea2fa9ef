"""The command line: `python -m service` serves until SIGTERM or Ctrl-C."""

import argparse
import os
import sys

from service.errors import StartupError
from service.server import serve
from service.settings import Settings, describe


def main(arguments: list[str] | None = None) -> int:
    """Run the service; return the exit status: 0 when told to stop, 1 when it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve the models of a folder over HTTP.",
        epilog="Settings are environment variables:\n" + _settings_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    try:
        serve(Settings.from_env(os.environ))
    except StartupError as error:
        print(f"torchlit: {error}", file=sys.stderr)
        return 1
    return 0


def _settings_table() -> str:
    return "\n".join(
        f"  {variable:<28} {default or 'unset':<10} {description}"
        for variable, default, description in describe()
    )


if __name__ == "__main__":
    sys.exit(main())
