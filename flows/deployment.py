"""The deployments of this installation: their ``prefect.yaml``, and its way to a Prefect server.

In: where and when, and what of covseg is installed here. Out: a file that names flows by module and no folder, and
deployments on the server that Prefect's settings name.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import httpx
from jinja2 import Environment, PackageLoader, StrictUndefined
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker

from covseg.errors import EnvironmentFailed, UsageError
from flows.deploy_settings import DeploySettings

# Each deployment, and the packages that its flow cannot be imported without.
NEEDS = {
    "archive": ("ray",),
    "recipe": ("torch", "albumentations", "segmentation_models_pytorch"),
    "split": ("matplotlib",),
    "on-demand": ("ray", "optuna", "torch", "albumentations", "segmentation_models_pytorch"),
}


def deployable() -> tuple[list[str], dict[str, str]]:
    """Return the deployments that this installation can run, and of the others the package that they lack."""
    lacking = {
        name: next((package for package in packages if importlib.util.find_spec(package) is None), None)
        for name, packages in NEEDS.items()
    }
    return [name for name in NEEDS if not lacking[name]], {name: one for name, one in lacking.items() if one}


def prefect_yaml(settings: DeploySettings, names: list[str]) -> str:
    """Return the text of a ``prefect.yaml`` with the deployments `names`."""
    environment = Environment(  # YAML: what comes from outside goes through tojson
        loader=PackageLoader("flows", ""),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    template = environment.get_template("deployments.yaml.j2")
    return template.render(names=names, prefect_version=version("prefect"), **settings.model_dump())


@contextlib.contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """Open a client of the server that Prefect's settings name, which answered and took our credentials.

    Raises
    ------
    UsageError
        When no server is named.
    EnvironmentFailed
        When it does not answer, or refuses us.
    """
    if not (url := get_current_settings().api.url):
        raise UsageError("no Prefect server is named: set PREFECT_API_URL, or run covseg up and the lines it prints")
    try:
        with get_client(sync_client=True) as client:
            client.hello()
            client.read_work_pools(limit=1)
            yield client
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        advice = "set PREFECT_API_AUTH_STRING (or PREFECT_API_KEY)" if code in (401, 403) else "look at its log"
        raise EnvironmentFailed(f"the Prefect server at {url} answered {code}: {advice}") from None
    except httpx.HTTPError as error:
        raise EnvironmentFailed(
            f"no Prefect server answers at {url} ({type(error).__name__}): start it, or correct PREFECT_API_URL"
        ) from None


def ensure_pool(name: str) -> bool:
    """Make the work pool, of type process, unless it is there; tell whether this call made it."""
    with server() as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
            return True
    return False


def register(path: Path, environment: Mapping[str, str] | None = None) -> None:
    """Register every deployment of a ``prefect.yaml`` with the server.

    Raises
    ------
    EnvironmentFailed
        With the last lines that Prefect said.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", path.name, "--all"]
    done = subprocess.run(  # noqa: S603
        command, cwd=path.absolute().parent, env=dict(environment or os.environ), capture_output=True, text=True
    )
    if done.returncode:
        output = " ".join((done.stdout + done.stderr).split())[-600:]
        raise EnvironmentFailed(f"Prefect did not take {path}: ... {output}")
