"""Common parts of the scripts for stock clients. python SCRIPT URL prints the name of each case that holds,
and ends with an error at the first case that does not."""

import sys
import time

url = sys.argv[1]


def case(f):
    f()
    print(f.__name__, flush=True)


def fails(f, *words, kind=Exception):
    """Calls f, which must fail with an error of the given kind that contains the given words."""
    try:
        f()
    except kind as e:
        assert all(word in f"{e!r} {e}" for word in words), repr(e)
        return e
    raise AssertionError(f"no error with {words}")


def soon(f):
    """Calls f, which must end before the model "slow" answers: an answer takes its only slot for 20 minutes."""
    begin = time.monotonic()
    f()
    assert time.monotonic() - begin < 300, time.monotonic() - begin
