"""The tables of accounts. A user's id is the opaque name that the queue sees."""

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from services.database.tables import Table


class UserRow(Table):
    """One person. `password` is an argon2 hash, empty for whoever signs in through a provider only."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)  # as typed to sign in, in lower case
    display_name: Mapped[str] = mapped_column(default="")
    email: Mapped[str] = mapped_column(default="")
    password: Mapped[str] = mapped_column(default="")
    role: Mapped[str] = mapped_column(default="user")
    group: Mapped[str] = mapped_column("group_name", default="")  # the name of a GroupRow, or empty
    subject: Mapped[str | None] = mapped_column(unique=True, default=None)  # `issuer subject` of OpenID Connect
    disabled: Mapped[bool] = mapped_column(default=False)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    seen_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)

    __table_args__ = (CheckConstraint("role IN ('user', 'admin')", name="role"),)


class GroupRow(Table):
    """A group of users. A limit that is null is not the group's to set."""

    __tablename__ = "user_groups"

    name: Mapped[str] = mapped_column(primary_key=True)
    tokens_per_day: Mapped[int | None] = mapped_column(BigInteger, default=None)
    in_flight: Mapped[int | None] = mapped_column(BigInteger, default=None)
    weight: Mapped[float | None] = mapped_column(default=None)
    created_ms: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint("tokens_per_day >= 0", name="tokens_per_day"),
        CheckConstraint("in_flight >= 0", name="in_flight"),
        CheckConstraint("weight >= 0.1 AND weight <= 100", name="weight"),
    )


class InvitationRow(Table):
    """A link by which one person may sign up; kept as a digest."""

    __tablename__ = "invitations"

    digest: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(default="user")
    group: Mapped[str] = mapped_column("group_name", default="")
    made_by: Mapped[str] = mapped_column(default="")
    created_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger)
    used_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)  # a used one stays used without its user
    used_by: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), default=None)

    __table_args__ = (CheckConstraint("role IN ('user', 'admin')", name="role"),)


class SessionRow(Table):
    """One signed-in browser; the cookie's secret is kept as a digest."""

    __tablename__ = "sessions"

    digest: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    browser: Mapped[str] = mapped_column(default="")
    address: Mapped[str] = mapped_column(default="")
    created_ms: Mapped[int] = mapped_column(BigInteger)
    seen_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger)
