"""
A clock that a test can set while processes run.

Not libfaketime: it bends the monotonic clock, too, or (0.9.10, with that turned off) breaks sleeping.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.requirements import require

# Takes the place of the C library's functions, through which Python asks for the time of day.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t shift(void) {
    char text[32] = {0};
    const char *name = getenv("SETTABLE_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
    close(file);
    return (time_t)atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    if (now) { now->tv_sec = precise.tv_sec; now->tv_usec = precise.tv_nsec / 1000; }
    return failed;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
"""


def settable_clock(folder: Path, clock: Path) -> dict[str, str]:
    """
    Return the environment in which a process's clock is off by the seconds written in the file ``clock``.

    :param folder: where the library is built
    """
    compiler = shutil.which("cc")
    require(compiler and sys.platform == "linux", "a clock can be set on Linux with a C compiler only")
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_SOURCE)
    subprocess.run([str(compiler), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    clock.write_text("0")
    return {"LD_PRELOAD": str(library), "SETTABLE_CLOCK": str(clock)}
