"""The errors a user can meet. Each says what was given, what was expected, and the cure.

AvenirError
├── Stopped         somebody ended what they were asked to do, or cannot do it
├── VideoError      a file that is no video, or a broken one
├── DamagedError    a file of ours that is not as it was written
└── TrainingError   a run that had to stop: loss not finite, folder of another recipe
VideoWarning        a file was read or written, and differs from what was to be expected
"""

import errno


class AvenirError(Exception):
    """A mistake the user can cure."""


class Stopped(AvenirError):
    """Somebody who was asked to go on would or could not: what is done stays, no more is asked."""


class VideoError(AvenirError):
    """A video file that cannot be read; the message names the file and the reason."""


class VideoWarning(UserWarning):
    """A video was read or written, but lacks frames or has another speed or other colours."""


class DamagedError(AvenirError):
    """A file that avenir wrote and that is not, or no longer, as it was written."""


class TrainingError(AvenirError):
    """A run that had to stop."""


_CURES = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the quota is used up: free some space and run the same command again",
    errno.EROFS: "it lies on a disk that cannot be written to: give a folder elsewhere",
    errno.EACCES: "permission is denied: give another place, or have its permissions changed",
    errno.EPERM: "permission is denied: give another place, or have its permissions changed",
    errno.ENOENT: "it is not there: look at how the name is written",
    errno.EISDIR: "it is a folder, and a file is needed: give another name",
    errno.ENOTDIR: "a folder that it is to lie in is a file: give another name",
    errno.ENAMETOOLONG: "the name is too long for the disk: give a shorter one",
    errno.ELOOP: "it is a link where a file of this run belongs: remove it",
    errno.EIO: "the disk cannot read or write it: look after the disk, then run the command again",
}


def sentence(error: OSError) -> str:
    """Say what the operating system refused: which file, why, and the cure where one is known."""
    reason = _CURES.get(error.errno or 0) or error.strerror or str(error)
    return f"{str(error.filename)!r}: {reason}" if error.filename is not None else reason
