"""Profiles: sets of names that are pinned to models while one of them is active."""

from fastapi import FastAPI
from fastapi.responses import Response

from llama_router.control.errors import declared
from llama_router.control.facades import ProfilesFacade
from llama_router.control.shapes import Answer, Name, Order, encoded


class ProfileShape(Answer):
    """One profile."""

    name: str
    description: str
    pins: dict[str, str]


class ProfileList(Answer):
    """All profiles; ``active`` is null without one."""

    profiles: list[ProfileShape]
    active: str | None


class ActiveShape(Answer):
    """The active profile."""

    active: str | None


class ActivateOrder(Order):
    """The profile that is to be active, null for none."""

    name: Name | None


def add_profile_routes(app: FastAPI, facade: ProfilesFacade) -> None:
    """Add ``/admin/profiles``."""

    @app.get("/admin/profiles", response_model=ProfileList)
    async def profiles() -> Response:
        found, active = await facade.profiles()
        return encoded({"profiles": found, "active": active or None})

    @app.get("/admin/profiles/active", response_model=ActiveShape)
    async def active_profile() -> Response:
        _found, active = await facade.profiles()
        return encoded({"active": active or None})

    @app.put("/admin/profiles/active", response_model=ActiveShape, responses=declared(409))
    async def activate(order: ActivateOrder) -> Response:
        await facade.activate_profile(order.name or "")
        return encoded({"active": order.name})
