"""Opens the endpoint of a conversion, as the commands do."""

import os
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr

from rtvc.clients.control.desk import Desk
from rtvc.clients.control.endpoint import opened
from rtvc.clients.control.runtime import announced
from rtvc.errors import ServiceError

PAGE = Path(__file__).parents[1] / "web" / "desk"


@contextmanager
def controlled(
    desk: Desk, *, page: bool = False, port: int = 0, token: SecretStr | None = None
) -> Iterator[None]:
    """While the block runs, `rtvc control` finds the conversion, and a browser shows the page.

    Without aiohttp there is neither, which matters only to who asks for the page.

    Raises:
        DependencyError: the page is wanted and aiohttp is not installed.
        ServiceError: the port cannot be had.
    """
    if find_spec("aiohttp") is None and not page:
        yield
        return
    with ExitStack() as stack:
        secret = None if token is None else token.get_secret_value()
        address = stack.enter_context(
            opened(desk, pid=os.getpid(), page=PAGE if page else None, port=port, token=secret)
        )
        try:
            stack.enter_context(announced(address))
        except (OSError, ServiceError) as error:  # the page does without
            print(f"`rtvc control` will not find this process: {error}", file=sys.stderr)
        if page:
            # Behind the hash: browsers send that to nobody.
            url = f"{address.url}/#token={address.token}"
            print(f"the page: {url}", file=sys.stderr)
            webbrowser.open(url)
        yield
