"""What the doctor says of the database."""

from pathlib import Path

from services.database.database import Database
from services.database.schema import migrate
from services.doctor.database import check_database
from services.settings import Settings


def test_the_doctor_tells_a_missing_an_older_and_a_ready_database_apart(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert [(f.level, "at its first start" in f.message) for f in check_database(settings)] == [("note", True)]
    migrate(Database.of(settings), "0001")
    assert [(f.level, "schema 0001" in f.message) for f in check_database(settings)] == [("note", True)]
    migrate(Database.of(settings))
    assert [f.level for f in check_database(settings)] == ["ok"]


def test_the_doctor_says_which_database_does_not_answer_without_its_password(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, database_url="postgresql://ada:tea@127.0.0.1:1/chat")
    (finding,) = check_database(settings)
    assert finding.level == "wrong" and "DATABASE_URL" in finding.remedy and "tea" not in finding.message
