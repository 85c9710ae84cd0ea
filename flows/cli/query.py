"""``covseg query``: a question to the published table of a destination."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from covseg.errors import UsageError
from flows.cli.console import note, show_json, show_result, table
from flows.cli.options import Destination, Json, Options, same


class QueryConfig(Options):
    """What `covseg query` can be told."""

    dest: str = same(Destination, "dest")
    sql: str = Field("", description='One SELECT over the table severity, such as "SELECT ... FROM severity".')
    by: str = Field("", description="Instead of SQL: break the fractions down by these columns.")
    metadata: Path | None = Field(None, description="CSV with a column key; its other columns join the table.")
    commits: str | None = same(Destination, "commits")
    json_: Json = False


def query(config: QueryConfig) -> int:
    """Ask the published table of a destination; cells of fewer than five images are withheld."""
    from covseg import archive

    if bool(config.sql) == bool(config.by):
        raise UsageError('query wants SQL or --by: covseg query DEST "SELECT count(*) AS n FROM severity"')
    sql = config.sql or archive.breakdown([name.strip() for name in config.by.split(",")])
    run = archive.load_run(*Destination(dest=config.dest, commits=config.commits).stores())
    answer = archive.query(run, sql, config.metadata)
    rows = [["" if value is None else str(value) for value in row] for row in answer.rows]
    if config.json_:
        show_json({"columns": answer.columns, "rows": answer.rows, "withheld": answer.withheld})
    else:
        show_result(None, table(answer.columns, rows, len(answer.columns)), as_json=False)
    if answer.withheld:
        note(f"{answer.withheld} cells of fewer than {archive.SMALLEST} images are withheld")
    return 0
