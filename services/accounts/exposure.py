"""Refuses to serve others without accounts, unless somebody has said so. Who starts the web app asks."""

from services.errors import ConfigurationError
from services.machine.addresses import is_loopback
from services.settings import Settings, variable_of


def check_exposure(settings: Settings) -> None:
    """Raises ConfigurationError when others reach the web app and nobody has decided about accounts."""
    field = "published_on" if settings.published_on else "host"
    address = getattr(settings, field)
    if settings.accounts or address.lower() == "localhost" or is_loopback(address):
        return
    accounts = variable_of("accounts")
    raise ConfigurationError(
        f"{variable_of(field)}={address!r} is an address that others may reach, and nobody has to sign in",
        remedy=f"set {accounts}=on and make the first account (`chatserver users create NAME --admin`), or set "
        f"{accounts}=off if everybody who reaches it may use it",
    )
