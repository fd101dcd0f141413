"""Refuses to serve others without accounts, unless somebody said so. Who starts the web app asks, and the doctor."""

from services.errors import ConfigurationError
from services.machine.addresses import is_loopback
from services.settings import Settings, variable_of


def public_address(settings: Settings) -> str:
    """The address at which others may reach the web app; empty when only this machine does."""
    address: str = getattr(settings, _field(settings))
    return "" if address.lower() == "localhost" or is_loopback(address) else address


def check_exposure(settings: Settings) -> None:
    """Raises ConfigurationError when others reach the web app and nobody has decided about accounts."""
    address = public_address(settings)
    if settings.accounts or not address:
        return
    accounts = variable_of("accounts")
    raise ConfigurationError(
        f"{variable_of(_field(settings))}={address!r} is an address that others may reach, and nobody has to sign in",
        remedy=f"set {accounts}=on and make the first account (`chatserver users create NAME --admin`), or set "
        f"{accounts}=off if everybody who reaches it may use it",
    )


def _field(settings: Settings) -> str:
    return "published_on" if settings.published_on else "host"
