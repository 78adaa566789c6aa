"""What the replicas of a test's cluster run: the service of the other tests, its model a delay."""

import os
from pathlib import Path

from serving import make_service

from rtvc.engine.fleet.service import MovingService


def open_fleet_service():
    """A replica's service, with the voices in the folder that `FLEET_VOICES` names."""
    return make_service(Path(os.environ["FLEET_VOICES"]), kind=MovingService, rows=8)
