"""The bookkeeping of an archive: plan, commits, published snapshots; it knows nothing of pixels, models or Ray.

A destination holds one model's and one config's rows for one source, in snapshots (``scoring-contract``)::

    run.json                      the model, config and project key of all of it              create-only
    plans/<n>/part-<sha>.parquet  the listing, content-named; plans/<n>/plan.json commits it create-only
    commits/<shard>.json          names a shard's objects by sha256, and who made them       create-only
    masks/ packed/ probability/ dicom/   objects named by content; they count once a commit names them
    tables/<shard>-<sha>.parquet  the shard's rows
    pictures/<n>-<sha>.json       thumbnails of the report
    overlays/<id>-<sha>.jpg       of its images, where they were asked for
    sent/<server>/<sha>.json      DICOM objects that a DICOMweb server has taken
    leases/<attempt>.json         a run at work renews it; gone with the run
    manifests/<n>.json            last: snapshot n exists                                    create-only
    severity.parquet .csv report.html      the newest snapshot's

How a run goes, in the caller's words::

    source, dest = open_store(SOURCE), open_store(DEST)          # covseg.storage
    commits = open_store(COMMITS) if COMMITS else dest           # create-only records live here
    check_disjoint(source, dest, commits)                        # before anything is written
    check_conditional_writes(commits)                            # refuses a store without create-only writes
    run = open_run(dest, commits, config, key_id(project_key), masks="png")
    plan = make_plan(run, source, include, exclude, limit)       # resumes, or lists again and carries over
    for shard in pending(run, plan):                             # only shards without a commit
        rows, masks = ...                                        # Pipeline: open, score, refuse
        commit_shard(run, shard, rows, masks, attempt_id)        # mask_uri is set here
    manifest = publish(run, plan, PublishOptions(max_failed, hide_keys), source, attempt_id)

`Run`, `Shard` and every store are picklable; `commit_shard` runs in any process. Rows are handed over
as the pipeline makes them, one per entry of the shard, in the shard's order, without `mask_uri` and
without duplicates marked; both are added here.
"""

from covseg.archive.changes import changes
from covseg.archive.commits import Outcome, commit_shard, write_objects
from covseg.archive.gc import Collected, gc
from covseg.archive.lease import hold_lease
from covseg.archive.manifests import PublishOptions, publish, rebuild, write_table
from covseg.archive.parts import Plan, Shard
from covseg.archive.plans import check_disjoint, make_plan, newest_plan, pending
from covseg.archive.query import SMALLEST, breakdown, query
from covseg.archive.records import Manifest, MaskMode, PartRecord
from covseg.archive.retry import plan_retry
from covseg.archive.runs import Run, check_conditional_writes, key_id, load_run, open_run
from covseg.archive.send import Sent, send

__all__ = [
    "SMALLEST",
    "Collected",
    "Manifest",
    "MaskMode",
    "Outcome",
    "PartRecord",
    "Plan",
    "PublishOptions",
    "Run",
    "Sent",
    "Shard",
    "breakdown",
    "changes",
    "check_conditional_writes",
    "check_disjoint",
    "commit_shard",
    "gc",
    "hold_lease",
    "key_id",
    "load_run",
    "make_plan",
    "newest_plan",
    "open_run",
    "pending",
    "plan_retry",
    "publish",
    "query",
    "rebuild",
    "send",
    "write_objects",
    "write_table",
]
