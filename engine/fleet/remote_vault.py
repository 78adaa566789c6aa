"""A vault that is an actor of the Ray cluster, called like one that is here."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any, cast

from rtvc.engine.fleet.config import NAME, NAMESPACE, ray_modules
from rtvc.engine.fleet.vault import Vault

VAULT_S = 2.0
"""Seconds that a vault is given to answer."""


class Actor:
    """Passes every method call on to an actor; if that is gone, the next call looks for its
    successor.

    Args:
        name: of the actor.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return functools.partial(self._call, method)

    async def _call(self, method: str, *arguments: Any) -> Any:
        ray, _ = ray_modules()
        try:
            if self._handle is None:
                self._handle = ray.get_actor(self._name, namespace=NAMESPACE)
            async with asyncio.timeout(VAULT_S):
                return await getattr(self._handle, method).remote(*arguments)
        except Exception:
            self._handle = None
            raise


def vault_name(index: int) -> str:
    """What the actor of a vault is called."""
    return f"{NAME}-vault-{index}"


def remote_vault(index: int) -> Vault:
    """A vault of the cluster that this process is connected to; each call fails with any exception
    when the vault is gone."""
    return cast(Vault, Actor(vault_name(index)))
