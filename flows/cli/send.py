"""``covseg send``: the DICOM objects of a destination, to a PACS."""

from __future__ import annotations

from pydantic import Field

from covseg.settings.dicom import DicomSettings
from flows.cli.console import progress, show_values, warn
from flows.cli.options import Destination, Json, Options, same


class SendConfig(Options):
    """What `covseg send` can be told."""

    dest: str = same(Destination, "dest")
    url: str = Field(description="Root of the DICOMweb service: https://host/dicom-web.")
    dicom: str = Field("", description="Only objects of these kinds: seg,sr,sc or some of them.")
    commits: str | None = same(Destination, "commits")
    show: int = Field(20, ge=1, description="Refusals printed; all are counted.")
    json_: Json = False


def send(config: SendConfig) -> int:
    """Store the published DICOM objects on a DICOMweb server; run again to resume, nothing is sent twice."""
    from covseg import archive
    from covseg.storage.dicomweb_http import Client

    client = Client(config.url.removeprefix("dicomweb+"))
    kinds = DicomSettings.parse(config.dicom, link_patient=False).kinds
    run = archive.load_run(*Destination(dest=config.dest, commits=config.commits).stores())
    with progress("objects") as report:
        sent = archive.send(run, client, kinds, lambda done, total: report(done, total))
    for name, reason in list(sent.refused.items())[: config.show]:
        warn(f"refused by the server: {name}: {reason}")
    counts = {"objects": sent.objects, "stored": sent.stored, "held_before": sent.held, "refused": len(sent.refused)}
    show_values(counts | ({"refusals": sent.refused} if config.json_ else {}), as_json=config.json_)
    return 3 if sent.refused else 0
