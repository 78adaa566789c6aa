"""Coroutines that a test runs, and does not wait for longer than that."""

import asyncio


def run(work, seconds=30):
    """Runs a coroutine function; longer than so many seconds nothing here takes."""
    asyncio.run(asyncio.wait_for(work(), seconds))
