"""What is on the disk, read from a trace of the server's system calls."""

from bench.durability import synced


def test_only_what_was_written_before_a_finished_fdatasync_is_safe() -> None:
    trace = [
        '11 100.000 write(9</aof>, ""..., 50) = 50',
        "12 100.010 fdatasync(9</aof> <unfinished ...>",
        '11 100.020 write(9</aof>, ""..., 30) = 30',
        "12 100.030 <... fdatasync resumed>) = 0",
        '11 100.520 write(9</aof>, ""..., 20) = 20',
        "12 100.600 fdatasync(9</aof> <unfinished ...>",
    ]
    safe, age_ms = synced(trace, 1000)
    assert safe == 1050 and round(age_ms) == 580


def test_nothing_is_left_when_each_write_is_synced() -> None:
    trace = ['11 100.0 write(9</aof>, ""..., 50) = 50', "11 100.1 fdatasync(9</aof>) = 0"]
    assert synced(trace, 0) == (50, 0.0)


def test_an_idle_server_has_lost_nothing() -> None:
    assert synced([], 1000) == (1000, 0.0)
