"""A process that promotes: ``python -m tests.integrations.mlflow.promoter URI NAME VERSION [die]``.

It reads "AFTER" lines and answers each with "won" or the error's message. With ``die``, it kills
itself between its record in the history and the alias.
"""

import os
import signal
import sys

from rootstock.errors import ConflictError
from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.registry.champion import promote


class Dying(MlflowRegistry):
    """End the process silently before it sets an alias."""

    def set_alias(self, name, alias, version):
        os.kill(os.getpid(), signal.SIGKILL)


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(uri, name, version, *, die=False):
    registry = Dying(uri) if die else MlflowRegistry(uri)
    registry.versions(name)  # connected before the race begins
    say("ready")
    for line in sys.stdin:
        try:
            promote(registry, name, version, after=int(line), by=f"process {version}")
        except ConflictError as error:
            say(error.message)
        else:
            say("won")


if __name__ == "__main__":
    main(*sys.argv[1:4], die=len(sys.argv) > 4)
