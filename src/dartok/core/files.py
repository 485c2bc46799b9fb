"""Files that are complete or absent, whatever stops the process."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["write_beside"]


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, flush it to the disk, and rename it into place.

    Args:
        path: Of the file; replaced if it is there.
        write: Writes the content to the path that it is given, in the same folder.
    Raises:
        OSError: If it cannot be written, such as on a full disk; the old file then stays.
    """
    # Not `tempfile`: its files can be read by their owner alone, also after the renaming.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # the latter is how torch.save reports a full disk
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno != errno.ENOSPC:
            raise
        raise OSError(
            f"{path} cannot be written ({str(error).splitlines()[0]}), with {free / 1e6:.1f} MB "
            "left there; free space, or choose another folder"
        ) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
