#!/usr/bin/python3
"""A case that waits for ever fails at its limit, and nothing that any case started is left."""
import pathlib
import subprocess
import tempfile
import time

import run

MARK = "86399.25"  # seconds: of the sleeps that are looked for


def sleeps_for_ever(_):
    # The shell is gone at once, in a session of its own; its child keeps the pipe.
    subprocess.run(["setsid", "sh", "-c", f"sleep {MARK} &"], stdout=subprocess.PIPE)


def leaves_something(_):
    subprocess.Popen(["setsid", "sleep", MARK])


def is_killed(_):
    subprocess.run(["sh", "-c", "kill -KILL $PPID"])


def fails(_):
    raise run.Failure("with a reason")


def left():
    return [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if MARK.encode() in p.read_bytes()]


def main():
    run.adopt_orphans()
    start = time.monotonic()
    outcome, text = run.run_case(sleeps_for_ever, None, 1)
    assert (outcome, text) == ("FAIL", "no end after 1 s, the limit of a case"), (outcome, text)
    assert time.monotonic() - start < 60
    assert run.run_case(leaves_something, None, 60) == ("ok", "")
    assert not left(), left()
    assert run.run_case(fails, None, 60) == ("FAIL", "with a reason")
    assert run.run_case(is_killed, None, 60)[0] == "FAIL"
    with tempfile.TemporaryDirectory() as folder:  # a failure leaves the next case alone
        assert run.run_case(lambda _: pathlib.Path(folder, "ran").touch(), None, 60) == ("ok", "")
        assert pathlib.Path(folder, "ran").exists()


main()
