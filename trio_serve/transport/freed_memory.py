"""Freed memory stays with the process, so that large messages find it warm.

    message of 1 MiB comes, is joined, parsed, answered and freed
        glibc, as it starts:  the heap's end goes back to the kernel; the next message faults in 700 new pages
        after `keep`:         up to `KEPT_BYTES` stay; the next message finds them

The faults were two fifths of an echo's CPU time.  glibc moves both its thresholds by itself when it frees a
block that it had mapped for itself: the block's size is the new limit for such mappings, twice that may stay
free at the heap's end.  So one large block, freed before anybody writes to it, is all that is needed.  Other
allocators are not impressed, and not harmed.

Source: mallopt(3), M_MMAP_THRESHOLD, "dynamic".
Knows nothing of connections.
"""

import functools

KEPT_BYTES = 8 * 1024 * 1024


@functools.cache  # a second block would come from the heap itself, and be cleared there
def keep() -> None:
    """Let the process keep what it frees, up to `KEPT_BYTES`; returns at once, and does something once."""
    bytes(KEPT_BYTES // 2)
