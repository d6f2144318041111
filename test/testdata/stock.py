"""What the scripts of stock clients share: python SCRIPT URL prints the name of each case that holds,
and ends with an error at the first that does not."""

import sys
import time

url = sys.argv[1]


def case(f):
    f()
    print(f.__name__, flush=True)


def fails(f, *words, kind=Exception):
    """Calls f, which must fail with an error of that kind and with these words."""
    try:
        f()
    except kind as e:
        assert all(word in f"{e!r} {e}" for word in words), repr(e)
        return e
    raise AssertionError(f"no error with {words}")


def soon(f):
    """Calls f, which must end before an answer of "slow", which takes 20 minutes and the one slot."""
    begin = time.monotonic()
    f()
    assert time.monotonic() - begin < 300, time.monotonic() - begin
