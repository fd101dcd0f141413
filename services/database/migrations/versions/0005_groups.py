"""Groups of users, with limits for each member.

Until now a group was a word beside a user or an invitation. Each such word becomes a group without limits.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NAMED = """
INSERT INTO user_groups (name, created_ms)
    SELECT group_name, min(created_ms) FROM (
        SELECT group_name, created_ms FROM users
        UNION ALL SELECT group_name, created_ms FROM invitations
    ) AS named
    WHERE group_name <> '' GROUP BY group_name
"""


def upgrade() -> None:
    op.create_table(
        "user_groups",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("tokens_per_day", sa.BigInteger),
        sa.Column("in_flight", sa.BigInteger),
        sa.Column("weight", sa.Float),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.CheckConstraint("tokens_per_day >= 0", name="tokens_per_day"),
        sa.CheckConstraint("in_flight >= 0", name="in_flight"),
        sa.CheckConstraint("weight >= 0.1 AND weight <= 100", name="weight"),
    )
    op.execute(NAMED)
