"""The submitter, read from the environment because it depends on the site, not on the preset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Submitter:
    """The submission_* keys of an MLPerf log that are not part of a configuration."""

    organization: str = "OPENFOLD_OPT"
    platform: str = "unnamed"
    """Name of the system. The log has <nodes>x<platform>."""
    status: str = "research"
    """One of cloud, onprem, preview, research."""

    def __post_init__(self) -> None:
        statuses = ("cloud", "onprem", "preview", "research")
        if self.status not in statuses:
            raise ValueError(
                f"SUBMISSION_STATUS is {self.status!r}; expected one of {', '.join(statuses)}"
            )
        # RESULT is the comma-separated line that run_and_time.sh prints last.
        for name, value in (("ORG", self.organization), ("PLATFORM", self.platform)):
            if not value.isprintable() or "," in value or '"' in value:
                raise ValueError(
                    f"SUBMISSION_{name} is {value!r}; expected a name without commas, quotes, line "
                    "ends and other control characters, which would break the RESULT line"
                )


def read_submitter(environment: Mapping[str, str] | None = None) -> Submitter:
    """Read SUBMISSION_ORG, SUBMISSION_PLATFORM and SUBMISSION_STATUS; ValueError for a bad one."""
    env = os.environ if environment is None else environment
    default = Submitter()
    return Submitter(
        organization=env.get("SUBMISSION_ORG") or default.organization,
        platform=env.get("SUBMISSION_PLATFORM") or default.platform,
        status=env.get("SUBMISSION_STATUS") or default.status,
    )
