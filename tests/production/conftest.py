"""Running services of docker-compose.yml, and substitutes for Docker."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bundles import tiny_bundle
from tests.production.composefile import ROOT
from tests.production.native import Stack, give_to, why_not_here

POSTGRES = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="session")
def needed():
    """Skip the test if a program that the services need is not installed."""

    def ask_for(*programs: str) -> None:
        for program in programs:
            path = os.pathsep.join([os.environ["PATH"], str(POSTGRES), "/usr/sbin"])
            if not shutil.which(program, path=path):
                pytest.skip(f"{program} is not installed on this machine")

    return ask_for


@pytest.fixture(scope="session")
def namespaces():
    """Skip if this machine cannot run services like containers."""
    if reason := why_not_here():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """(folder, API keys by role) created by services/make-secrets."""
    folder = tmp_path_factory.mktemp("secrets") / "of-the-stack"
    done = subprocess.run(
        [ROOT / "services/make-secrets", folder], capture_output=True, text=True, check=True
    )
    words = [line.split() for line in done.stdout.splitlines() if "API key" in line]
    return folder, {line[5].rstrip(","): line[-1] for line in words}


@pytest.fixture(scope="module")
def make_stack(tmp_path_factory, secrets, namespaces):
    """Return a function that creates an empty stack with settings; all are stopped afterwards."""
    made = []

    def make(**settings: str) -> Stack:
        home = tmp_path_factory.mktemp("stack")
        project = home / "project"
        project.mkdir()
        os.chown(project, 1000, 1000)
        given = {"SECRETS": str(secrets[0]), "ROOTSTOCK_PROJECT": str(project)}
        made.append(Stack(home, given | settings))
        return made[-1]

    yield make
    for stack in made:
        stack.close()


def put_model(stack: Stack, number: int) -> None:
    """A model in the volume, where a replica of the service finds it."""
    volume = stack.folder / f"inference-{number}" / "volume"
    shutil.copytree(tiny_bundle(), volume / "model")
    give_to(10001, volume)
