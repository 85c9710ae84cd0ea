"""What `covseg deploy` is told, by flags or by a file; nothing heavy is imported for it."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class DeploySettings(BaseModel):
    """What the deployments of an installation are told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pool: str = Field("covseg", min_length=1, description="Work pool; a process pool is made where there is none.")
    source: str | None = Field(None, description="SOURCE of score/archive where a run gives none.")
    dest: str | None = Field(None, description="DEST of score/archive where a run gives none.")
    cron: str | None = Field(None, description="When score/archive runs by itself: '0 2 * * *' is 2 at night.")
    timezone: str = Field("UTC", description="Of --cron: UTC, Europe/Rome.")
    image: str | None = Field(None, description="Container image of the runs, for a kubernetes or docker pool.")

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError, KeyError):
            raise ValueError(f"timezone {name!r} is not known: wanted a name such as UTC or Europe/Rome") from None
        return name

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, cron: str | None) -> str | None:
        if cron is not None:
            from prefect.client.schemas.schedules import CronSchedule

            try:
                CronSchedule(cron=cron)
            except ValueError:
                raise ValueError("wanted minute, hour, day, month and weekday, such as '0 2 * * *'") from None
        return cron

    @model_validator(mode="after")
    def _whole(self) -> DeploySettings:
        if self.cron and not (self.source and self.dest):
            raise ValueError("a schedule wants both --source and --dest: nobody is there to give them at night")
        return self
