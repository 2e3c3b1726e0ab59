"""What a daemon takes over from whoever started it: as little as can be. Imports nothing that takes long."""

import os
import resource
import signal

_DESCRIPTORS = 4096


def detach() -> None:
    """Go on in a process that nobody waits for, in a session of its own; the one that was started ends here."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():  # and no session's leader, so that no terminal it opens becomes its own
        os._exit(0)


def scrub() -> None:
    """Drop what git, a shell or a service manager's caller left: variables of git, ignored and blocked signals."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]  # set by whichever hook or command of git started us, and about its work, not ours
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
