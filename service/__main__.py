"""The command line: `python -m service` serves until SIGTERM or Ctrl-C."""

import argparse
import os
import sys

from service.errors import ServiceError
from service.settings import Settings, describe


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status: 0 when all is well, 1 when it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve the models of a folder over HTTP.",
        epilog="Settings are environment variables:\n" + _settings_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["serve", "health"],
        default="serve",
        help="serve: the default; health: exit with 0 if the service that has these settings is "
        "ready, else with 1",
    )
    command = parser.parse_args(arguments).command
    try:
        run(command, Settings.from_env(os.environ))
    except ServiceError as error:
        print(f"torchlit: {error}", file=sys.stderr)
        return 1
    return 0


def run(command: str, settings: Settings) -> None:
    """Run one of the commands, importing only what it needs. Raises ServiceError."""
    if command == "health":
        from service.health import check

        check(settings)
    else:
        from service.server import serve

        serve(settings)


def _settings_table() -> str:
    return "\n".join(
        f"  {variable:<28} {default or 'unset':<10} {description}"
        for variable, default, description in describe()
    )


if __name__ == "__main__":
    sys.exit(main())
