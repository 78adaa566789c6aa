"""What the replicas of a test's cluster run: the service of the other tests, its model a delay."""

import functools
import os
from pathlib import Path

from serving import make_service

from rtvc.engine.fleet.service import FleetService


def open_fleet_service(membership):
    """A replica's service, with the voices in the folder that `FLEET_VOICES` names."""
    kind = functools.partial(FleetService, membership=membership)
    return make_service(Path(os.environ["FLEET_VOICES"]), kind=kind, rows=8)
